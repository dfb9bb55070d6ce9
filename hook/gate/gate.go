// Package gate keeps processes that wait on an autofs mount out of the way while
// that mount's master is replaced, and lets them go on, without an error, when
// the new master serves it.
//
// A gate is an autofs mount of our own. It is stacked on the mounts that
// processes wait on; their requests there are answered, so that they walk on, into
// the gate, where they wait again. Then it is taken off the mounts, with the
// processes still in it, and later each gets ESTALE, upon which the kernel walks
// its whole path once more (Open). It notices none of that.
package gate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/guard"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Source is the name of a gate in mount tables, while it is on a mount.
const Source = "autofs-restore-hook"

// Limits of the search for the tokens that processes wait for.
const (
	maxTries   = 1 << 18 // in all, about 2 µs each
	maxTime    = time.Second
	checkEvery = 256
)

// settleTime bounds how long processes may take to walk from a mount into the
// gate. That is a few microseconds when there is a processor for them.
const settleTime = 100 * time.Millisecond

// Place is an uncovered direct or offset mount in one mount namespace.
type Place struct {
	Process *nsenter.Process // in that namespace
	Root    *os.File         // for ioctls, opened in that namespace
	Device  uint64           // st_dev
	// Propagation of the mount itself.
	Propagation mounts.Propagation
}

// Gate holds processes. Open must be called whatever happens.
type Gate struct {
	service *service
	control *autofs.Control
	guard   guard.Ref
	placed  []placed
}

// placed is a copy of the gate on a mount.
type placed struct {
	process *nsenter.Process
	tree    *os.File
}

// Divert makes a gate and brings all processes there that wait on the given
// places. missing counts those that still wait where they waited before.
// announce is told the gate's st_dev before it is put anywhere, for [Remove].
// Processes that come to the places afterwards find them as they were.
func Divert(ctx context.Context, places []Place, missing func() int, announce func(device uint64) error) (*Gate, error) {
	token, err := autofs.CurrentToken()
	if err != nil {
		return nil, err
	}
	g := &Gate{}
	if g.control, err = autofs.OpenControl(); err != nil {
		return nil, err
	}
	if g.service, err = serve(); err != nil {
		g.control.Close()
		return nil, err
	}
	// If we are killed, everybody in the gate is let go, with an error.
	if g.guard, err = guard.Start(nil, []guard.Action{{File: g.service.root, Word: guard.LetGo}}); err != nil {
		return nil, errors.Join(err, g.Open())
	}
	device, err := autofs.Device(g.service.root)
	if err == nil {
		err = announce(device)
	}
	if err == nil {
		err = g.stack(ctx, places)
	}
	if err == nil {
		g.admit(ctx, places, token, missing)
	}
	err = errors.Join(err, g.lift(ctx))
	if err != nil {
		return nil, errors.Join(err, g.Open())
	}
	return g, nil
}

// stack puts the gate on every place: from some of them it travels to others.
func (g *Gate) stack(ctx context.Context, places []Place) error {
	devices := map[uint64]bool{}
	for _, p := range places {
		if devices[p.Device] {
			continue
		}
		devices[p.Device] = true
		var same []Place
		var propagation []mounts.Propagation
		for _, q := range places {
			if q.Device == p.Device {
				same = append(same, q)
				propagation = append(propagation, q.Propagation)
			}
		}
		for _, i := range mounts.Origins(propagation) {
			if err := g.stackOn(ctx, same[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// stackOn puts the service's tree on a place and makes a copy for the next one
// there: before Linux 6.15 only a mount of one's own namespace can be copied.
func (g *Gate) stackOn(ctx context.Context, p Place) error {
	// Nobody may be left in a namespace that was entered half: this is short.
	err := p.Process.InMountNamespace(context.WithoutCancel(ctx), func(*nsenter.Thread) error {
		tree := g.service.tree
		// From Linux 6.19 on (922a6f34c175) a mount that propagates nothing sends
		// away, with EPERM, whoever is not in the mount namespace of its superblock.
		err := unix.MountSetattr(int(tree.Fd()), "", unix.AT_EMPTY_PATH, &unix.MountAttr{Propagation: unix.MS_SHARED})
		if err != nil {
			return os.NewSyscallError("mount_setattr", err)
		}
		err = unix.MoveMount(int(tree.Fd()), "", int(p.Root.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
		if err != nil {
			return os.NewSyscallError("move_mount", err)
		}
		g.placed = append(g.placed, placed{process: p.Process, tree: tree})
		g.service.tree = nil
		fd, err := unix.OpenTree(int(tree.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
		if err != nil {
			return os.NewSyscallError("open_tree", err)
		}
		g.service.tree = os.NewFile(uintptr(fd), Source)
		return nil
	})
	if err != nil {
		return fmt.Errorf("hold back those who wait on %q: %w", p.Root.Name(), err)
	}
	return nil
}

// admit answers what processes wait for at the places. Their tokens are younger
// than the restore, so they are found counting down from the current one.
func (g *Gate) admit(ctx context.Context, places []Place, token uint32, missing func() int) {
	var roots []*os.File
	seen := map[uint64]bool{}
	for _, p := range places {
		if !seen[p.Device] {
			seen[p.Device] = true
			roots = append(roots, p.Root)
		}
	}
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
	for end = time.Now().Add(settleTime); left > 0 && time.Now().Before(end); left = missing() {
		time.Sleep(time.Millisecond)
	}
}

// lift takes the gate off all mounts. Processes that wait in it stay there.
func (g *Gate) lift(ctx context.Context) error {
	var errs []error
	for _, p := range g.placed {
		errs = append(errs, p.process.InMountNamespace(context.WithoutCancel(ctx), func(*nsenter.Thread) error {
			return detach(p.tree)
		}), p.tree.Close())
	}
	g.placed = nil
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("take the gate away: %w", err)
	}
	return nil
}

func detach(root *os.File) error {
	if err := unix.Fchdir(int(root.Fd())); err != nil {
		return os.NewSyscallError("fchdir", err)
	}
	return os.NewSyscallError("umount2", unix.Unmount(".", unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
}

// Detach takes away a gate whose root is open, in a process's mount namespace.
func Detach(ctx context.Context, p *nsenter.Process, root *os.File) error {
	return p.InMountNamespace(context.WithoutCancel(ctx), func(*nsenter.Thread) error { return detach(root) })
}

// Remove takes away a gate that a killed run has left at a path, when its guard
// has let everybody go.
func Remove(ctx context.Context, p *nsenter.Process, path string, device uint64) error {
	control, err := autofs.OpenControl()
	if err != nil {
		return err
	}
	defer control.Close()
	return p.InMountNamespace(context.WithoutCancel(ctx), func(*nsenter.Thread) error {
		root, err := control.OpenMount(path, device)
		if err != nil {
			return err
		}
		defer root.Close()
		return detach(root)
	})
}

// lastRequest is how long the gate waits for a process that comes late.
const lastRequest = 2 * time.Millisecond

// Open lets everybody who waits in the gate walk his path once more.
func (g *Gate) Open() error {
	var errs []error
	for {
		p, ok, err := g.service.request(lastRequest)
		if errors.Is(err, io.EOF) {
			break // the guard was here first
		}
		errs = append(errs, err)
		if err != nil || !ok {
			break
		}
		if err := g.control.Fail(g.service.root, p.Token, unix.ESTALE); !errors.Is(err, unix.EINVAL) { // nobody waits for it any more
			errs = append(errs, err)
		}
	}
	errs = append(errs, autofs.Catatonic(g.service.root)) // nobody can be left in it
	g.guard.Stop()
	g.service.close()
	return errors.Join(append(errs, g.control.Close())...)
}
