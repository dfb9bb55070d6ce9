package hook

import (
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
)

// snapshot describes the container without calling any of its processes. known is the
// handover of the earlier stages of the restore, empty if there were none.
func (r Runner) snapshot(e Event, c *container.Container, known *journal.Handover) (*container.Snapshot, error) {
	snapshot := &container.Snapshot{
		PID: e.PID, Strategy: e.Strategy, Restore: known.Stage != "" || e.Watch, Restored: container.Restored(c.Init),
		ReexecuteReplaced: r.Config.ReexecuteReplaced,
	}
	if !c.HasAutofs() {
		return snapshot, nil
	}
	var err error
	if snapshot.Mounts, err = c.Survey(); err != nil {
		return nil, err
	}
	if e.Visitors {
		if err := c.CheckFirstProcess(snapshot.Mounts); err != nil {
			r.Warn(err)
		}
	}
	if err := r.journal().MarkConfirmed(c.Init, snapshot.Mounts); err != nil {
		r.Warn(err)
	}
	known.Describe(snapshot.Mounts, c.Main().ID)
	container.NameUnits(snapshot.Mounts)
	blocked, err := c.FindWaiters()
	if err != nil {
		return nil, err
	}
	snapshot.Waiters = container.WaitersInside(blocked, snapshot.Mounts)
	if !snapshot.Restore {
		c.MarkRestored(snapshot)
	}
	return snapshot, nil
}
