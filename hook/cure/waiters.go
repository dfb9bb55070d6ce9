package cure

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/automount"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/owner"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/park"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/waiters"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"

	"golang.org/x/sys/unix"
)

// openBlockedRoots opens the roots of mounts that could not be opened because of their
// waiters. An automount daemon is made to open them. If that is impossible, and the
// administrator allows it, the waiters are killed.
func (r *Repair) openBlockedRoots(ctx context.Context, list []int) {
	blocked := map[int][]int{} // by the master's pid
	for _, i := range list {
		m := &r.snapshot.Mounts[i]
		if m.Main && r.rootOf(m) == nil && m.Options.Type.Trigger() {
			blocked[m.Master.PID] = append(blocked[m.Master.PID], i)
		}
	}
	for pid, list := range blocked {
		if r.container.Masters[pid] != nil && r.snapshot.Mounts[list[0]].Master.Kind == master.Automount {
			r.openViaDaemon(ctx, pid, list)
		}
		if r.killWaiters {
			r.killWaitersOn(ctx, list)
		}
	}
}

// openViaDaemon makes an automount daemon open the roots of mounts.
func (r *Repair) openViaDaemon(ctx context.Context, pid int, list []int) {
	var wanted []automount.Root
	for _, i := range list {
		m := &r.snapshot.Mounts[i]
		wanted = append(wanted, automount.Root{Path: m.Path, Device: m.Device})
	}
	files, err := automount.OpenBlockedRoots(ctx, r.container.Masters[pid], wanted)
	if err != nil {
		r.warn(err)
	}
	for n, f := range files {
		if f != nil {
			m := &r.snapshot.Mounts[list[n]]
			r.container.Roots[m.Key()] = f
		}
	}
}

// killWaitersOn kills the waiters on mounts whose roots are not open, and opens the roots.
func (r *Repair) killWaitersOn(ctx context.Context, list []int) {
	found, err := r.container.FindWaiters()
	if err != nil {
		r.warn(err)
		return
	}
	killed := false
	for _, i := range list {
		found = slices.DeleteFunc(found, func(p container.Waiter) bool { return r.refused[p.PID] })
		m := &r.snapshot.Mounts[i]
		if r.rootOf(m) != nil {
			continue
		}
		for _, p := range found {
			if p.Path != "" && !p.On(m.Path) {
				continue // on another mount
			}
			doubt := ""
			if p.Path == "" {
				doubt = "; its path could not be read, so that it may have waited on another mount"
			}
			if err := r.killWaiter(ctx, p); err != nil {
				r.warn(err)
				continue
			}
			r.refused[p.PID] = true
			killed = true
			r.warn(fmt.Errorf("process %d (%q) waited on %q and was killed because of --kill-waiters%s", p.PID, p.Command, m.Path, doubt))
		}
	}
	if killed {
		if err := r.container.OpenRoots(ctx, container.EveryRoot); err != nil {
			r.warn(err)
		}
	}
}

// killWaiter kills the process of a waiter, which is a thread, and waits for its end. The
// error is owner.ErrOutside if the process is not in a mount namespace of the container:
// it may have entered the container from outside.
func (s *Session) killWaiter(ctx context.Context, p container.Waiter) error {
	process, err := nsenter.OpenIdentity(p.Process, p.ProcessStart)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer process.Close()
	if id, err := process.Namespace("mnt"); err != nil || s.container.Space(id.Inode) == nil || process.CheckForeign() != nil {
		return fmt.Errorf("process %d: %w: it waits in another mount namespace", p.Process, errors.Join(owner.ErrOutside, err))
	}
	if err := process.Signal(unix.SIGKILL); err != nil {
		return err
	}
	return process.WaitEnd(ctx)
}

// parkWaiters moves the waiters on the mounts into a parking mount, and returns a function
// that makes them resolve their paths again. A waiter that cannot be moved gets an error
// when the old superblock of its mount becomes catatonic.
func (r *Repair) parkWaiters(ctx context.Context, list []int) (resume func()) {
	resume = func() {}
	before := r.waitersAt(list)
	if len(before) == 0 {
		return resume
	}
	parked, err := park.Park(ctx, r.triggersToPark(list), func() int { return waiters.CountBlocked(before) }, func(device uint64) error {
		_, err := journal.WaiterParkings.Begin(r.journal, r.container.Init, journal.WaiterParking{Device: device})
		return err
	})
	if err != nil {
		r.warn(fmt.Errorf("the waiters cannot be parked, and get an error: %w", errors.Join(err, r.removeWaiterParking(ctx))))
	} else {
		resume = func() {
			if err := errors.Join(parked.Release(ctx), journal.WaiterParkings.Of(r.journal, r.container.Init).Commit()); err != nil {
				r.warn(err)
			}
		}
	}
	r.markRefused(before)
	return resume
}

// waitersAt returns the waiters on the mounts, and those whose paths cannot be read.
func (r *Repair) waitersAt(list []int) []container.Waiter {
	found, err := r.container.FindWaiters()
	if err != nil {
		r.warn(err)
	}
	return slices.DeleteFunc(found, func(p container.Waiter) bool { return p.Path != "" && !r.mayReach(p.Path, list) })
}

// markRefused adds the waiters that were not moved, and get an error, to refused.
func (r *Repair) markRefused(before []container.Waiter) {
	for _, p := range before {
		if p.StillBlocked() {
			r.refused[p.PID] = true
		}
	}
}

// mayReach reports whether a path is at or below one of the mounts.
func (r *Repair) mayReach(path string, list []int) bool {
	return slices.ContainsFunc(list, func(i int) bool {
		return container.Waiter{Path: path}.On(r.snapshot.Mounts[i].Path)
	})
}

// triggersToPark returns the triggers from which waiters can be moved: those with an open
// root and without a cover.
func (r *Repair) triggersToPark(list []int) []park.Trigger {
	var triggers []park.Trigger
	for _, i := range list {
		m := &r.snapshot.Mounts[i]
		root := r.rootOf(m)
		if root == nil || len(m.Covers) > 0 && !m.UnderParking || !m.Options.Type.Trigger() {
			continue
		}
		for _, sp := range r.container.Spaces {
			if sp.ID != m.Namespace || sp.Table == nil {
				continue
			}
			if entry := sp.Table.ByID(m.ID); entry != nil {
				triggers = append(triggers, park.Trigger{
					Process: sp.Process, Root: root, Device: m.Device, Propagation: mounts.PropagationOf(entry),
				})
			}
		}
	}
	return triggers
}

// checkReleasable returns an error if a mount has waiters and its root is not open: they
// could not be released after a reload.
func (r *Repair) checkReleasable(list []int) error {
	found, err := r.container.FindWaiters()
	if err != nil {
		return err
	}
	for _, i := range list {
		m := &r.snapshot.Mounts[i]
		if r.hasRoot(m.Device) {
			continue
		}
		if blocked := container.WaitersOn(found, m.Path); len(blocked) > 0 {
			return fmt.Errorf("%q: its waiters cannot be released, because its root is unreachable; end %s, or run \"autofs-restore-hook repair --kill-waiters %d\"",
				m.Path, container.NameWaiters(blocked), r.snapshot.PID)
		}
	}
	return nil
}

// hasRoot reports whether the root of a mount of the superblock is open, in any namespace.
func (r *Repair) hasRoot(device uint64) bool {
	return slices.ContainsFunc(r.snapshot.Mounts, func(m container.Mount) bool { return m.Device == device && r.rootOf(&m) != nil })
}

// releaseWaiters releases all waiters on the mount's superblock with ENOENT. It must not be
// called while the master still serves the mount.
func (r *Repair) releaseWaiters(m *container.Mount) {
	root := r.rootOf(m)
	if root == nil {
		return
	}
	if err := autofs.Release(root); err != nil {
		r.warn(fmt.Errorf("%q: release its waiters: %w", m.Path, err))
	}
}

// rootOf returns the open root of a mount, nil if it is not open.
func (r *Repair) rootOf(m *container.Mount) *os.File {
	return r.container.Roots[m.Key()]
}
