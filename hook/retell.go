package hook

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
)

// returnInterval is the pause between two attempts to reach a systemd that
// re-executes itself.
const returnInterval = 2 * time.Millisecond

// retell tells each systemd the new device numbers of its mounts, all at once.
// What it could not be told is planned for a restart, with the reason. It
// reports whether anything was tried.
func (w *work) retell(ctx context.Context) bool {
	bySystemd := map[int][]int{}
	for _, i := range w.ordered(Retold) {
		if m := &w.snapshot.Mounts[i]; m.Main {
			bySystemd[m.Master.PID] = append(bySystemd[m.Master.PID], i)
		}
	}
	for pid, list := range bySystemd {
		w.retellOne(ctx, pid, list)
	}
	return len(bySystemd) > 0
}

func (w *work) retellOne(ctx context.Context, pid int, list []int) {
	var changes []master.DeviceChange
	for _, i := range list {
		m := &w.snapshot.Mounts[i]
		changes = append(changes, master.DeviceChange{Unit: m.Master.Unit, Old: m.DeviceBefore, New: m.Device})
	}
	edit, err := w.tell(ctx, pid, changes)
	for _, i := range list {
		m := &w.snapshot.Mounts[i]
		switch {
		case err != nil:
			w.restartInstead(i, err.Error())
		case !slices.Contains(edit.Changed, m.Master.Unit):
			w.restartInstead(i, edit.Left[m.Master.Unit])
		}
	}
	if err := w.scene.awaitManager(ctx, pid); err != nil {
		w.warn(err)
		return
	}
	if edit == nil {
		return
	}
	for _, i := range list {
		m := &w.snapshot.Mounts[i]
		if w.plan[i].Cure != Retold {
			continue
		}
		// systemd took these requests while it could not answer them. It does
		// when the mount comes up.
		if slices.Contains(edit.Waiting, m.Master.Unit) || len(waitersOn(w.snapshot.Waiters, m.Path)) > 0 {
			if err := w.scene.managers[pid].StartMount(ctx, m.Master.Unit); err != nil {
				w.warn(fmt.Errorf("%q: answer those who wait: %w", m.Path, err))
			}
		}
	}
}

// oldestRetold is the oldest version of systemd that is told numbers this way.
const oldestRetold = 240

func (w *work) tell(ctx context.Context, pid int, changes []master.DeviceChange) (*master.StateEdit, error) {
	manager, err := w.scene.manager(ctx, pid)
	if err != nil {
		return nil, err
	}
	version, err := manager.Version(ctx)
	if err != nil {
		return nil, err
	}
	if version < oldestRetold {
		return nil, fmt.Errorf("%w: it is version %d, older than %d", master.ErrNotRetold, version, oldestRetold)
	}
	if err := w.store.beginTelling(w.scene.init); err != nil {
		return nil, err
	}
	w.scene.forgetManager(pid) // its connection breaks
	return master.Retell(ctx, w.scene.masters[pid], master.Telling{
		Version: version, Changes: changes, Replaced: w.snapshot.ReexecuteReplaced,
	})
}

// restartInstead plans a restart for a mount that was to be retold, in every
// namespace that shows it.
func (w *work) restartInstead(mount int, reason string) {
	cure := Restarted
	if w.snapshot.Strategy == RetellOnly {
		cure = Unrepaired
	}
	device := w.snapshot.Mounts[mount].Device
	for i := range w.plan {
		if w.plan[i].Cure == Retold && w.snapshot.Mounts[w.plan[i].Mount].Device == device {
			w.plan[i].Cure = cure
			w.plan[i].Reason = strings.TrimPrefix(w.plan[i].Reason+"; "+reason, "; ")
			if m := &w.snapshot.Mounts[mount]; m.Master.Nested {
				w.plan[i].Cure = Unrepaired
				w.plan[i].Reason += "; " + restartThere(m)
			}
		}
	}
}

// forgetManager closes the connection to a systemd.
func (s *scene) forgetManager(pid int) {
	if m := s.managers[pid]; m != nil {
		m.Close()
		delete(s.managers, pid)
	}
}

// awaitManager connects to a systemd that is starting again.
func (s *scene) awaitManager(ctx context.Context, pid int) error {
	for {
		m, err := s.manager(ctx, pid)
		if err == nil {
			if err = m.Ping(ctx); err == nil {
				return nil
			}
			s.forgetManager(pid)
		}
		delete(s.silent, pid)
		select {
		case <-time.After(returnInterval):
		case <-ctx.Done():
			return fmt.Errorf("systemd does not come back after its re-execution: %w", err)
		}
	}
}
