package cure

import (
	"fmt"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
)

// verify looks at everything again, triggering nothing, and takes back each
// claim that does not hold: the path must show exactly one autofs mount, its
// pipe must have the right master as its reader, and what covered it must be
// there.
func (w *Repair) verify() {
	if err := w.container.ReadTables(); err != nil {
		w.setAllUnrepaired(err)
		return
	}
	now, err := w.container.Survey()
	if err != nil {
		w.setAllUnrepaired(err)
		return
	}
	shown := placesOf(now)
	for i := range w.Plan {
		d := &w.Plan[i]
		if d.Cure != plan.Reexecuted && d.Cure != plan.Restarted && d.Cure != plan.Reloaded {
			continue
		}
		before := &w.snapshot.Mounts[d.Mount]
		after := shown[place{before.Namespace, before.Path}]
		if after == nil && d.Reason == plan.UnmountedReason {
			continue
		}
		if err := checkCured(before, after, d.Cure); err != nil {
			w.setUnrepaired(i, err)
		}
		if after != nil {
			before.Device, before.ID = after.Device, after.ID
			before.Below, before.Covers = after.Below, after.Covers
			before.Master.PID, before.Master.StartTime = after.Master.PID, after.Master.StartTime
		}
	}
}

func (w *Repair) setAllUnrepaired(err error) {
	for i := range w.Plan {
		if w.Plan[i].Cure == plan.Reexecuted || w.Plan[i].Cure == plan.Restarted || w.Plan[i].Cure == plan.Reloaded {
			w.setUnrepaired(i, fmt.Errorf("the repair could not be verified: %w", err))
		}
	}
}

// place is a path of a mount namespace.
type place struct {
	namespace uint64
	path      string
}

// placesOf returns the only autofs mount at each place, nil where there are more.
func placesOf(list []container.Mount) map[place]*container.Mount {
	found := make(map[place]*container.Mount, len(list))
	for i := range list {
		p := place{list[i].Namespace, list[i].Path}
		if _, another := found[p]; another {
			found[p] = nil
		} else {
			found[p] = &list[i]
		}
	}
	return found
}

func checkCured(before, after *container.Mount, cure plan.Cure) error {
	switch {
	case after == nil:
		return fmt.Errorf("after the repair %q does not show exactly one autofs mount", before.Path)
	case after.Master.Kind != before.Master.Kind || after.Master.Kind == master.None:
		return fmt.Errorf("after the repair the pipe of %q has no reader that is a %s", before.Path, before.Master.Kind)
	case cure == plan.Reexecuted && (after.ID != before.ID || after.Device != before.Device):
		return fmt.Errorf("%q was mounted again while systemd re-executed itself", before.Path)
	case cure == plan.Restarted && after.ID == before.ID:
		return fmt.Errorf("mount %d is still at %q: its mount namespace receives no changes from the container's", before.ID, before.Path)
	case cure == plan.Reloaded && (after.ID == before.ID || after.Parking || after.Master.PID != before.Master.PID):
		return fmt.Errorf("automount %d has not mounted %q again", before.Master.PID, before.Path)
	case cure != plan.Reloaded && len(after.Below) < len(before.Below):
		return fmt.Errorf("%d mounts covered %q before the repair, %d after it", len(before.Below), before.Path, len(after.Below))
	}
	return nil
}
