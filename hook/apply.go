package hook

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sort"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
)

// work carries out a plan and writes into it what came of it.
type work struct {
	scene    *scene
	store    store
	snapshot *Snapshot
	plan     []Decision
	warn     func(error)
	// thaw lets the container run again, if it was frozen for the repair.
	thaw func()
	// before are the waiters when the work began.
	before []Waiter
}

// apply carries out the cures: systemd is told new device numbers, each automount
// daemon is respawned, and then units are restarted, the shortest path first, so
// that an automount below another one is looked at when the outer one stands.
func (w *work) apply(ctx context.Context) {
	w.before = w.snapshot.Waiters
	acted := w.retell(ctx)
	daemons := map[int][]int{}
	for _, i := range w.ordered(Respawned) {
		pid := w.snapshot.Mounts[i].Master.PID
		daemons[pid] = append(daemons[pid], i)
	}
	for _, list := range daemons {
		acted = true
		if err := w.respawn(ctx, list); err != nil {
			for _, i := range list {
				w.fail(i, err)
			}
		}
	}
	// A restart may stop services, and what is frozen does not stop.
	w.thaw()
	for _, i := range w.ordered(Restarted) {
		if !w.snapshot.Mounts[i].Main {
			continue
		}
		acted = true
		if err := w.restart(ctx, i); err != nil {
			w.fail(i, err)
		}
	}
	if acted {
		w.verify()
	}
}

// ordered returns the mounts with a cure, the shortest path first.
func (w *work) ordered(cure Cure) []int {
	var list []int
	for _, d := range w.plan {
		if d.Cure == cure {
			list = append(list, d.Mount)
		}
	}
	sort.SliceStable(list, func(a, b int) bool {
		return len(w.snapshot.Mounts[list[a]].Path) < len(w.snapshot.Mounts[list[b]].Path)
	})
	return list
}

func (w *work) fail(mount int, err error) {
	w.plan[mount].Cure = Unrepaired
	w.plan[mount].Reason = err.Error()
}

// restart restarts the unit of a systemd automount. What covers the mount is
// kept in a mount namespace of our own and put back; who waits on the old mount
// is let go.
func (w *work) restart(ctx context.Context, i int) error {
	m := &w.snapshot.Mounts[i]
	manager, err := w.scene.manager(ctx, m.Master.PID)
	if err != nil {
		return err
	}
	main := w.scene.main()
	var covers *keeping
	if len(m.Covers) > 0 {
		if covers, err = w.store.keep(ctx, w.scene.init, main.process, m); err != nil {
			return err
		}
	}
	restartErr := manager.Restart(ctx, m.Master.Unit)
	w.release(m)
	fresh, err := w.freshMount(m)
	if err != nil {
		if covers != nil {
			err = errors.Join(err, covers.leave()) // the next run tries again
		}
		return errors.Join(restartErr, err)
	}
	if covers != nil {
		if err := covers.kept.PutBack(ctx, main.process, fresh); err != nil {
			return errors.Join(restartErr, err, covers.leave())
		}
		restartErr = errors.Join(restartErr, covers.drop(ctx))
	}
	return errors.Join(restartErr, w.renewElsewhere(ctx, m, fresh))
}

// renewElsewhere puts the mount that systemd has made anew into the mount
// namespaces that it does not propagate to, in the place of the old one.
func (w *work) renewElsewhere(ctx context.Context, m *Mount, fresh uint64) error {
	if err := w.scene.readTables(); err != nil {
		return err
	}
	var others []mounts.Space
	for _, sp := range w.scene.mountSpaces() {
		if sp.Shows(m.Path, m.Device) {
			others = append(others, sp)
		}
	}
	if len(others) == 0 {
		return nil
	}
	copied, err := mounts.CopyOfAutofs(ctx, w.scene.main().process, m.Path, fresh)
	if err != nil {
		return err
	}
	defer copied.Close()
	r := &mounts.Replacement{Path: m.Path, Old: m.Device, New: copied, Device: fresh}
	return errors.Join(mounts.Replace(ctx, others, []*mounts.Replacement{r}), r.Err)
}

// freshMount returns the device number of the autofs mount that is at the path
// now, after its unit was restarted.
func (w *work) freshMount(m *Mount) (uint64, error) {
	if err := w.scene.readTables(); err != nil {
		return 0, err
	}
	for _, now := range w.scene.main().table.Autofs() {
		if now.Mountpoint == m.Path && now.ID != m.ID {
			return mounts.DeviceOf(now), nil
		}
	}
	return 0, fmt.Errorf("after the restart of %s no autofs mount is at %q: see \"systemctl status %s\" in the container",
		m.Master.Unit, m.Path, m.Master.Unit)
}

// respawn ends an automount daemon and has its service start a new one, which
// takes over all the mounts that exist. A new daemon would hang in its own
// start on a direct mount that somebody waits on, so everybody is let go
// between the two: then nobody can wait there any more.
func (w *work) respawn(ctx context.Context, list []int) error {
	first := &w.snapshot.Mounts[list[0]]
	manager, err := w.scene.manager(ctx, w.scene.init.PID())
	if err != nil {
		return err
	}
	daemon := w.scene.masters[first.Master.PID]
	if err := w.canRelease(list); err != nil {
		return err
	}
	if err := manager.Kill(ctx, first.Master.Unit, daemon, first.Master.ContainerPID); err != nil {
		return err
	}
	for _, i := range list {
		w.release(&w.snapshot.Mounts[i])
	}
	return manager.Start(ctx, first.Master.Unit, first.Master.ContainerPID)
}

// canRelease refuses to touch a daemon while somebody waits on a mount of its
// whose root is not open: he could not be let go.
func (w *work) canRelease(list []int) error {
	for _, i := range list {
		m := &w.snapshot.Mounts[i]
		if w.root(m) != nil {
			continue
		}
		if waiting := waitersOn(w.snapshot.Waiters, m.Path); len(waiting) > 0 {
			return fmt.Errorf("%s: nobody can be let go from it any more; end %s, then run \"autofs-restore-hook repair %d\"",
				m.Path, nameWaiters(waiting), w.snapshot.PID)
		}
	}
	return nil
}

// release lets go of everybody who waits on the mount's superblock: they get
// ENOENT. It must not be called while its master still serves it.
func (w *work) release(m *Mount) {
	root := w.root(m)
	if root == nil {
		return
	}
	if err := autofs.Catatonic(root); err != nil {
		w.warn(fmt.Errorf("%s: let go of the processes that wait on it: %w", m.Path, err))
	}
}

func (w *work) root(m *Mount) *os.File { return w.scene.roots[rootKey{m.Namespace, m.ID}] }

func waitersOn(list []Waiter, path string) []Waiter {
	var found []Waiter
	for _, w := range list {
		if w.Path == path || strings.HasPrefix(w.Path, path+"/") {
			found = append(found, w)
		}
	}
	return found
}

func nameWaiters(list []Waiter) string {
	var names []string
	for _, w := range list {
		names = append(names, fmt.Sprintf("process %d (%q)", w.PID, w.Command))
	}
	return strings.Join(names, ", ")
}

// countWaiters notes how many of those who waited before wait no more, and who
// still does.
func (w *work) countWaiters(report *Report) {
	if len(w.before) == 0 {
		return
	}
	now, err := w.scene.waiters()
	if err != nil {
		w.warn(err)
		return
	}
	report.Waiting = nil
	still := map[int]bool{}
	for _, p := range now {
		if slices.ContainsFunc(w.before, func(b Waiter) bool { return b.PID == p.PID }) {
			report.Waiting = append(report.Waiting, p)
			still[p.PID] = true
		}
	}
	counted := map[int]bool{}
	for i := range report.Mounts {
		m := &report.Mounts[i]
		if m.MountNamespace != w.scene.main().id {
			continue
		}
		for _, p := range waitersOn(w.before, m.Path) {
			switch {
			case still[p.PID]:
				report.stuck = report.stuck || m.Outcome != Healthy
			case !counted[p.PID]:
				counted[p.PID] = true
				m.WaitersReleased++
			}
		}
	}
}
