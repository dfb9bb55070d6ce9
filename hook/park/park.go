package park

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/helper/fdstore"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Limits of the search for the tokens of the waiters.
const (
	maxTries   = 1 << 18 // in all, about 2 µs each
	maxTime    = time.Second
	checkEvery = 256
)

// walkTime bounds how long processes may take to walk from a mount into the lot: a few
// microseconds once a processor runs them.
const walkTime = 100 * time.Millisecond

// Trigger is an uncovered direct or offset mount in one mount namespace.
type Trigger struct {
	Process *nsenter.Process // in that namespace
	Root    *os.File         // for ioctls, opened in that namespace
	Device  uint64           // st_dev
	// Propagation of the mount itself.
	Propagation mounts.Propagation
}

// Parked holds the processes that Park moved into a lot. Release must be called in any
// case.
type Parked struct {
	lot     *Lot
	control *autofs.Control
	helper  fdstore.Ref
	copies  []lotCopy
}

// lotCopy is a copy of the lot on a mount.
type lotCopy struct {
	process *nsenter.Process
	tree    *os.File
}

// Park moves all waiters on the given triggers into a lot, and unmounts the lot from the
// triggers again, with the processes in it. missing counts the waiters that have not moved.
// Before the lot is attached, announce gets its st_dev, for [Remove]. Processes that come
// to the triggers afterwards find them unchanged.
func Park(ctx context.Context, triggers []Trigger, missing func() int, announce func(device uint64) error) (*Parked, error) {
	token, err := autofs.CurrentToken()
	if err != nil {
		return nil, err
	}
	p := &Parked{}
	if p.control, err = autofs.OpenControl(); err != nil {
		return nil, err
	}
	if p.lot, err = New(0); err != nil {
		p.control.Close()
		return nil, err
	}
	// If this process is killed, the helper releases the processes in the lot with ENOENT.
	if p.helper, err = fdstore.StartBoundToSelf([]*os.File{p.lot.Root}, 1); err != nil {
		return nil, errors.Join(err, p.Release(ctx))
	}
	device, err := p.lot.Device()
	if err == nil {
		err = announce(device)
	}
	if err == nil {
		err = p.stack(ctx, triggers)
	}
	if err == nil {
		MoveWaiters(ctx, triggers, token, missing)
	}
	err = errors.Join(err, p.unmount(ctx))
	if err != nil {
		return nil, errors.Join(err, p.Release(ctx))
	}
	return p, nil
}

// stack mounts the lot on every trigger: it propagates from the origins to the others.
func (p *Parked) stack(ctx context.Context, triggers []Trigger) error {
	for _, origin := range Origins(triggers) {
		// Short enough to finish after the end of ctx, which would abandon the thread.
		err := origin.Process.InMountNamespace(context.WithoutCancel(ctx), func(*nsenter.Thread) error {
			// From Linux 6.19 on (922a6f34c175) a mount that propagates nothing refuses,
			// with EPERM, each process outside the mount namespace of its superblock.
			if err := sys.SetPropagation(p.lot.Tree, unix.MS_SHARED); err != nil {
				return err
			}
			tree, err := p.lot.AttachTo(origin.Root)
			if tree != nil {
				p.copies = append(p.copies, lotCopy{process: origin.Process, tree: tree})
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Origins picks the triggers on which a lot must be mounted to propagate to all of them,
// along the propagation of the mounts of each superblock.
func Origins(triggers []Trigger) []Trigger {
	var origins []Trigger
	seen := map[uint64]bool{}
	for _, p := range triggers {
		if seen[p.Device] {
			continue
		}
		seen[p.Device] = true
		var same []Trigger
		var propagation []mounts.Propagation
		for _, q := range triggers {
			if q.Device == p.Device {
				same = append(same, q)
				propagation = append(propagation, q.Propagation)
			}
		}
		for _, i := range mounts.Origins(propagation) {
			origins = append(origins, same[i])
		}
	}
	return origins
}

// roots returns the triggers' roots, one for each superblock.
func roots(triggers []Trigger) []*os.File {
	var list []*os.File
	seen := map[uint64]bool{}
	for _, p := range triggers {
		if !seen[p.Device] {
			seen[p.Device] = true
			list = append(list, p.Root)
		}
	}
	return list
}

// MoveWaiters answers the requests of the waiters on the triggers, on which a lot must be mounted,
// so that they walk into the lot. Their tokens are unknown, but made since the restore:
// the search counts down from the current token. It returns when missing is 0, or after a
// time limit.
func MoveWaiters(ctx context.Context, triggers []Trigger, token uint32, missing func() int) {
	roots := roots(triggers)
	left, end := missing(), time.Now().Add(maxTime)
	for tries := 0; left > 0 && tries < maxTries && token > 0 && ctx.Err() == nil && time.Now().Before(end); token-- {
		answered := false
		roots = slices.DeleteFunc(roots, func(root *os.File) bool {
			tries++
			err := autofs.Ready(root, token)
			answered = answered || err == nil
			return err == nil // a direct mount has one request at a time
		})
		if len(roots) == 0 {
			break
		}
		if answered || tries%checkEvery < len(roots) {
			left = missing()
		}
	}
	for end = time.Now().Add(walkTime); left > 0 && time.Now().Before(end); left = missing() {
		time.Sleep(time.Millisecond)
	}
}

// unmount unmounts all copies of the lot. The processes in it continue to wait.
func (p *Parked) unmount(ctx context.Context) error {
	var errs []error
	for _, c := range p.copies {
		errs = append(errs, Detach(ctx, c.process, c.tree), c.tree.Close())
	}
	p.copies = nil
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("unmount the parking mount: %w", err)
	}
	return nil
}

// Release makes the processes in the lot repeat their path lookups, and closes it.
func (p *Parked) Release(ctx context.Context) error {
	err := p.lot.Retry(p.control)
	return errors.Join(err, p.lot.Close(), p.helper.Stop(ctx), p.control.Close())
}
