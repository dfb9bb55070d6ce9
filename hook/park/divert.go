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
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/helper"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Limits of the search for the tokens that processes wait for.
const (
	maxTries   = 1 << 18 // in all, about 2 µs each
	maxTime    = time.Second
	checkEvery = 256
)

// walkTime bounds how long processes may take to walk from a mount into the lot.
// That is a few microseconds when there is a processor for them.
const walkTime = 100 * time.Millisecond

// Place is an uncovered direct or offset mount in one mount namespace.
type Place struct {
	Process *nsenter.Process // in that namespace
	Root    *os.File         // for ioctls, opened in that namespace
	Device  uint64           // st_dev
	// Propagation of the mount itself.
	Propagation mounts.Propagation
}

// Diverted are processes that were brought from their mounts into a lot. Resume
// must be called whatever happens.
type Diverted struct {
	lot     *Lot
	control *autofs.Control
	helper  helper.Ref
	placed  []placed
}

// placed is a copy of the lot on a mount.
type placed struct {
	process *nsenter.Process
	tree    *os.File
}

// Divert brings all processes into a lot that wait on the given places, and takes
// the lot off the places again, with the processes in it. missing counts those
// that still wait where they waited before. announce is told the lot's st_dev
// before it is attached anywhere, for [Remove]. Processes that come to the places
// afterwards find them as they were.
func Divert(ctx context.Context, places []Place, missing func() int, announce func(device uint64) error) (*Diverted, error) {
	token, err := autofs.CurrentToken()
	if err != nil {
		return nil, err
	}
	d := &Diverted{}
	if d.control, err = autofs.OpenControl(); err != nil {
		return nil, err
	}
	if d.lot, err = New(0); err != nil {
		d.control.Close()
		return nil, err
	}
	// If we are killed, the helper releases the processes in the lot, with ENOENT.
	if d.helper, err = helper.StartBoundToSelf([]*os.File{d.lot.Root}, 1); err != nil {
		return nil, errors.Join(err, d.Resume(ctx))
	}
	device, err := d.lot.Device()
	if err == nil {
		err = announce(device)
	}
	if err == nil {
		err = d.stack(ctx, places)
	}
	if err == nil {
		Admit(ctx, places, token, missing)
	}
	err = errors.Join(err, d.lift(ctx))
	if err != nil {
		return nil, errors.Join(err, d.Resume(ctx))
	}
	return d, nil
}

// stack puts the lot on every place: from some of them it travels to others.
func (d *Diverted) stack(ctx context.Context, places []Place) error {
	for _, origin := range Origins(places) {
		// No thread may stay in a namespace that was entered half: this is short.
		err := origin.Process.InMountNamespace(context.WithoutCancel(ctx), func(*nsenter.Thread) error {
			if err := setShared(d.lot.Tree); err != nil {
				return err
			}
			tree, err := d.lot.StackOn(origin.Root)
			if tree != nil {
				d.placed = append(d.placed, placed{process: origin.Process, tree: tree})
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// setShared makes the lot propagate: from Linux 6.19 on (922a6f34c175) a mount
// that propagates nothing refuses, with EPERM, each process that is not in the
// mount namespace of its superblock.
func setShared(tree *os.File) error {
	return os.NewSyscallError("mount_setattr",
		unix.MountSetattr(int(tree.Fd()), "", unix.AT_EMPTY_PATH, &unix.MountAttr{Propagation: unix.MS_SHARED}))
}

// Origins picks the places on which a lot must be stacked for it to arrive on all
// of them: on each superblock it travels along the propagation of its mounts.
func Origins(places []Place) []Place {
	var origins []Place
	seen := map[uint64]bool{}
	for _, p := range places {
		if seen[p.Device] {
			continue
		}
		seen[p.Device] = true
		var same []Place
		var propagation []mounts.Propagation
		for _, q := range places {
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

// roots are the places' roots, one for each superblock.
func roots(places []Place) []*os.File {
	var list []*os.File
	seen := map[uint64]bool{}
	for _, p := range places {
		if !seen[p.Device] {
			seen[p.Device] = true
			list = append(list, p.Root)
		}
	}
	return list
}

// Admit answers the requests that processes wait for on the places, on which a lot
// is stacked by now, so that they walk on into that. token is a current one: theirs are younger than the restore, and are searched counting
// down from it. It returns when missing counts no process any more, or after a
// time limit.
func Admit(ctx context.Context, places []Place, token uint32, missing func() int) {
	roots := roots(places)
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

// lift takes the lot off all mounts. The processes in it wait on.
func (d *Diverted) lift(ctx context.Context) error {
	var errs []error
	for _, p := range d.placed {
		errs = append(errs, Detach(ctx, p.process, p.tree), p.tree.Close())
	}
	d.placed = nil
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("take the parking mount away: %w", err)
	}
	return nil
}

// Resume makes the processes in the lot walk their paths once more.
func (d *Diverted) Resume(ctx context.Context) error {
	err := d.lot.Retry(d.control)
	return errors.Join(err, d.lot.Close(), d.helper.Stop(ctx), d.control.Close())
}
