package cure

import (
	"fmt"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
)

// verify surveys the container again and sets each cure that has failed to unrepaired: the
// path must show exactly one autofs mount, the right master must read its pipe, and its
// covers must exist. It triggers no automount.
func (r *Repair) verify() {
	if err := r.container.ReadTables(); err != nil {
		r.setAllUnrepaired(err)
		return
	}
	found, err := r.container.Survey()
	if err != nil {
		r.setAllUnrepaired(err)
		return
	}
	shown := mountsByLocation(found)
	for i := range r.Plan {
		d := &r.Plan[i]
		if d.Cure != plan.Reexecuted && d.Cure != plan.Restarted && d.Cure != plan.Reloaded {
			continue
		}
		before := &r.snapshot.Mounts[i]
		after := shown[location{before.Namespace, before.Path}]
		if after == nil && d.Unmounted {
			continue
		}
		if err := checkCured(before, after, d.Cure); err != nil {
			r.setUnrepaired(i, err)
		}
		if after != nil {
			before.Device, before.ID = after.Device, after.ID
			before.Below, before.Covers = after.Below, after.Covers
			before.Master.PID, before.Master.StartTime = after.Master.PID, after.Master.StartTime
		}
	}
}

// setAllUnrepaired makes err the reason for all cures.
func (r *Repair) setAllUnrepaired(err error) {
	for i := range r.Plan {
		if r.Plan[i].Cure == plan.Reexecuted || r.Plan[i].Cure == plan.Restarted || r.Plan[i].Cure == plan.Reloaded {
			r.setUnrepaired(i, fmt.Errorf("the repair could not be verified: %w; repair again", err))
		}
	}
}

// location is a path in a mount namespace.
type location struct {
	namespace uint64
	path      string
}

// mountsByLocation returns the only autofs mount at each location, nil where there are more.
func mountsByLocation(list []container.Mount) map[location]*container.Mount {
	found := make(map[location]*container.Mount, len(list))
	for i := range list {
		p := location{list[i].Namespace, list[i].Path}
		if _, another := found[p]; another {
			found[p] = nil
		} else {
			found[p] = &list[i]
		}
	}
	return found
}

// checkCured returns an error if the cure of a mount has failed. after is nil if the path
// does not show exactly one autofs mount.
func checkCured(before, after *container.Mount, cure plan.Cure) error {
	switch {
	case after == nil:
		return fmt.Errorf("after the repair %q does not show exactly one autofs mount", before.Path)
	case after.Master.Kind != before.Master.Kind || after.Master.Kind == master.None:
		return fmt.Errorf("after the repair no %s reads the pipe of %q", before.Master.Kind, before.Path)
	case cure == plan.Reexecuted && (after.ID != before.ID || after.Device != before.Device):
		return fmt.Errorf("%q was mounted again while systemd re-executed itself", before.Path)
	case cure == plan.Restarted && after.ID == before.ID:
		return fmt.Errorf("mount %d is still at %q: changes of mounts in the container do not propagate to its mount namespace", before.ID, before.Path)
	case cure == plan.Reloaded && (after.ID == before.ID || after.Parking || after.Master.PID != before.Master.PID):
		return fmt.Errorf("automount %d has not mounted %q again", before.Master.PID, before.Path)
	case cure != plan.Reloaded && len(after.Below) < len(before.Below):
		return fmt.Errorf("%d mounts covered %q before the repair, %d after it", len(before.Below), before.Path, len(after.Below))
	}
	return nil
}
