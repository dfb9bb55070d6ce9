package cure

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/automount"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/owner"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/park"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/waiters"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
	"golang.org/x/sys/unix"
)

// openBlockedRoots opens the roots of mounts that could not be opened because a process
// waits there. An automount daemon is made to do it. Where that is not possible, and
// the administrator wants it so, the waiters are ended.
func (w *Repair) openBlockedRoots(ctx context.Context, list []int) {
	closed := map[int][]int{} // by the master's pid
	for _, i := range list {
		m := &w.snapshot.Mounts[i]
		if m.Main && w.rootOf(m) == nil && m.Options.Type.Trigger() {
			closed[m.Master.PID] = append(closed[m.Master.PID], i)
		}
	}
	for pid, list := range closed {
		if w.container.Masters[pid] != nil && w.snapshot.Mounts[list[0]].Master.Kind == master.Automount {
			w.openViaDaemon(ctx, pid, list)
		}
		if w.killWaiters {
			w.killWaitersOn(ctx, list)
		}
	}
}

func (w *Repair) openViaDaemon(ctx context.Context, pid int, list []int) {
	var wanted []automount.Root
	for _, i := range list {
		m := &w.snapshot.Mounts[i]
		wanted = append(wanted, automount.Root{Path: m.Path, Device: m.Device})
	}
	files, err := automount.OpenRoots(ctx, w.container.Masters[pid], wanted)
	if err != nil {
		w.warn(err)
	}
	for n, f := range files {
		if f != nil {
			m := &w.snapshot.Mounts[list[n]]
			w.container.Roots[m.Key()] = f
		}
	}
}

// killWaitersOn ends the processes that wait on mounts that are still closed.
func (w *Repair) killWaitersOn(ctx context.Context, list []int) {
	now, err := w.container.FindWaiters()
	if err != nil {
		w.warn(err)
		return
	}
	ended := false
	for _, i := range list {
		now = slices.DeleteFunc(now, func(p container.Waiter) bool { return w.refused[p.PID] })
		m := &w.snapshot.Mounts[i]
		if w.rootOf(m) != nil {
			continue
		}
		for _, p := range now {
			if p.Path != "" && len(container.WaitersOn([]container.Waiter{p}, m.Path)) == 0 {
				continue // it waits elsewhere
			}
			doubt := ""
			if p.Path == "" {
				doubt = "; what it wanted could not be read, so that it may have waited on another mount"
			}
			if err := w.killWaiter(ctx, p); err != nil {
				w.warn(err)
				continue
			}
			w.refused[p.PID] = true
			ended = true
			w.warn(fmt.Errorf("process %d (%q) waited on %q and was ended, as --kill-waiters demands%s", p.PID, p.Command, m.Path, doubt))
		}
	}
	if ended {
		if err := w.container.OpenRoots(ctx, container.EveryRoot); err != nil {
			w.warn(err)
		}
	}
}

// killWaiter ends the process that a waiter is a thread of. It may have entered the
// container from outside: then it is looked at where it is now.
func (s *Session) killWaiter(ctx context.Context, p container.Waiter) error {
	thread, err := nsenter.OpenIdentity(p.Process, p.Start)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer thread.Close()
	if id, err := thread.Namespace("mnt"); err != nil || s.container.Space(id.Inode) == nil || thread.CheckForeign() != nil {
		return fmt.Errorf("process %d: %w: it waits in another mount namespace", p.Process, errors.Join(owner.ErrOutside, err))
	}
	if err := thread.Signal(unix.SIGKILL); err != nil {
		return err
	}
	return thread.WaitEnd(ctx)
}

// parkWaiters brings the processes that wait on one of the mounts into a parking mount,
// and returns what makes them walk their paths again. A process that cannot be
// brought there gets an error when the mount's old superblock is given up.
func (w *Repair) parkWaiters(ctx context.Context, list []int) (resume func()) {
	resume = func() {}
	before := w.waitersAt(list)
	if len(before) == 0 {
		return resume
	}
	d, err := park.Divert(ctx, w.parkPlaces(list), func() int { return waiters.NotMoved(before) }, func(device uint64) error {
		_, err := journal.WaitersParked.Begin(w.journal, w.container.Init, journal.ParkedWaiters{Device: device})
		return err
	})
	if err != nil {
		w.warn(fmt.Errorf("the processes that wait cannot be parked, and get an error: %w", err))
	} else {
		resume = func() {
			if err := errors.Join(d.Resume(ctx), journal.WaitersParked.Of(w.journal, w.container.Init).Commit()); err != nil {
				w.warn(err)
			}
		}
	}
	w.markRefused(before)
	return resume
}

// waitersAt finds the processes that wait on one of the mounts, or may: what they
// want to reach cannot always be read.
func (w *Repair) waitersAt(list []int) []waiters.Waiter {
	found, err := waiters.Find(w.container.Members)
	if err != nil {
		w.warn(err)
	}
	return slices.DeleteFunc(found, func(p waiters.Waiter) bool { return p.Path != "" && !w.mayReach(p.Path, list) })
}

// markRefused notes the processes that still wait where they waited: they get an error.
func (w *Repair) markRefused(before []waiters.Waiter) {
	for _, p := range before {
		if waiters.NotMoved([]waiters.Waiter{p}) > 0 {
			w.refused[p.PID] = true
		}
	}
}

// mayReach reports whether a path may lead onto one of the mounts.
func (w *Repair) mayReach(path string, list []int) bool {
	return slices.ContainsFunc(list, func(i int) bool {
		return len(container.WaitersOn([]container.Waiter{{Path: path}}, w.snapshot.Mounts[i].Path)) > 0
	})
}

// parkPlaces are those of the mounts from which waiters can be released.
func (w *Repair) parkPlaces(list []int) []park.Place {
	var places []park.Place
	for _, i := range list {
		m := &w.snapshot.Mounts[i]
		root := w.rootOf(m)
		if root == nil || len(m.Covers) > 0 && !m.UnderParking || !m.Options.Type.Trigger() {
			continue
		}
		for _, sp := range w.container.Spaces {
			if sp.ID != m.Namespace || sp.Table == nil {
				continue
			}
			if now := sp.Table.ByID(m.ID); now != nil {
				places = append(places, park.Place{
					Process: sp.Process, Root: root, Device: m.Device, Propagation: mounts.PropagationOf(now),
				})
			}
		}
	}
	return places
}

// checkReleasable refuses to touch a daemon while a process waits on a mount of its
// whose root is not open: it could not be released.
func (w *Repair) checkReleasable(list []int) error {
	now, err := w.container.FindWaiters()
	if err != nil {
		return err
	}
	for _, i := range list {
		m := &w.snapshot.Mounts[i]
		if w.hasRoot(m.Device) {
			continue
		}
		if waiting := container.WaitersOn(now, m.Path); len(waiting) > 0 {
			return fmt.Errorf("%s: the processes that wait on it cannot be released, because its root is unreachable; end %s, or run \"autofs-restore-hook repair --kill-waiters %d\"",
				m.Path, container.NameWaiters(waiting), w.snapshot.PID)
		}
	}
	return nil
}

// hasRoot reports whether a mount of the superblock is open in any namespace.
func (w *Repair) hasRoot(device uint64) bool {
	return slices.ContainsFunc(w.snapshot.Mounts, func(m container.Mount) bool { return m.Device == device && w.rootOf(&m) != nil })
}

// releaseWaiters releases all processes that wait on the mount's superblock: they get
// ENOENT. It must not be called while its master still serves it.
func (w *Repair) releaseWaiters(m *container.Mount) {
	root := w.rootOf(m)
	if root == nil {
		return
	}
	if err := autofs.Release(root); err != nil {
		w.warn(fmt.Errorf("%s: release the processes that wait on it: %w", m.Path, err))
	}
}

func (w *Repair) rootOf(m *container.Mount) *os.File {
	return w.container.Roots[m.Key()]
}

// servingTime bounds how long a repair waits for the processes that it has
// released: a master mounts what they asked for.
const servingTime = time.Second

// CountWaiters notes how many of the earlier waiters wait no more, and which still
// do.
func (w *Repair) CountWaiters(report *report.Report) {
	before := w.snapshot.Waiters
	if len(before) == 0 {
		return
	}
	still := map[int]bool{}
	for end := time.Now().Add(servingTime); ; time.Sleep(container.RetryInterval) {
		now, err := w.container.FindWaiters()
		if err != nil {
			w.warn(err)
			return
		}
		report.Waiting = slices.DeleteFunc(now, func(p container.Waiter) bool {
			return !slices.ContainsFunc(before, func(b container.Waiter) bool { return b.PID == p.PID })
		})
		if len(report.Waiting) == 0 || time.Now().After(end) {
			break
		}
	}
	for _, p := range report.Waiting {
		still[p.PID] = true
	}
	counted := map[int]bool{}
	for i := range report.Mounts {
		m := &report.Mounts[i]
		if m.MountNamespace != w.container.Main().ID {
			continue
		}
		for _, p := range container.WaitersOn(before, m.Path) {
			switch {
			case still[p.PID]:
				report.Stuck = report.Stuck || m.Outcome != plan.Healthy
			case !counted[p.PID]:
				counted[p.PID] = true
				if w.refused[p.PID] {
					m.WaitersRefused++
				} else {
					m.WaitersReleased++
				}
			}
		}
	}
}
