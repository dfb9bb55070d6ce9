package hook

import (
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
)

// snapshot describes the container, and asks none of its processes. known is what
// earlier stages of the restore left.
func (r Runner) snapshot(e Event, sc *container.Container, known *journal.Handover) (*container.Snapshot, error) {
	snapshot := &container.Snapshot{
		PID: e.PID, Strategy: e.Strategy, Restore: known.Stage != "" || e.Watch, Restored: container.Restored(sc.Init),
		ReexecuteReplaced: r.Config.ReexecuteReplaced,
	}
	if !sc.HasAutofs() {
		return snapshot, nil
	}
	var err error
	if snapshot.Mounts, err = sc.Survey(); err != nil {
		return nil, err
	}
	if e.Everyone {
		if err := sc.CheckFirstProcess(snapshot.Mounts); err != nil {
			r.Warn(err)
		}
	}
	if err := r.journal().MarkConfirmed(sc.Init, snapshot.Mounts); err != nil {
		r.Warn(err)
	}
	known.Describe(snapshot.Mounts, sc.Main().ID)
	container.NameUnits(snapshot.Mounts)
	waiting, err := sc.FindWaiters()
	if err != nil {
		return nil, err
	}
	snapshot.Waiters = container.WaitersInside(waiting, snapshot.Mounts)
	if !snapshot.Restore {
		sc.MarkRestored(snapshot)
	}
	return snapshot, nil
}
