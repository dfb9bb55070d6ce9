package hook

import (
	"fmt"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/cgroup"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/cure"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// prepare runs when the restored container's control group is known and only its first
// process exists. systemd watches cgroup.events of every unit's group. CRIU recreates
// only groups with processes, which those of an active mount unit and of a slice have
// not, and a restore fails where a watched file does not exist ("fsnotify: Unable to
// open"). So prepare creates the groups that the images have watches on, within the
// container's own group.
//
// It has no effect on control groups version 1, which systemd does not watch
// (unit_watch_cgroup, src/core/cgroup.c, returns for a hierarchy that is not unified).
func (r Runner) prepare(e Event) error {
	if has, err := hasAutofs(e.ImageDir); err != nil || !has {
		return err
	}
	init, err := nsenter.Open(e.PID)
	if err != nil {
		return err
	}
	defer init.Close()
	criu, err := nsenter.Open(e.CRIU)
	if err != nil {
		return fmt.Errorf("the restoring process: %w", err)
	}
	defer criu.Close()
	hasNamespace, err := cgroup.HasOwnNamespace(init)
	if err != nil {
		return err
	}
	view := cure.HostView
	if hasNamespace {
		view = cure.OwnView
	}
	return r.createGroups(init, criu, e.ImageDir, view)
}

// createGroups creates the groups that systemd watches, and logs their names. dir is the
// directory of the checkpoint images.
func (r Runner) createGroups(init, criu *nsenter.Process, dir string, view cure.GroupView) error {
	watched, err := readWatches(dir)
	if err != nil {
		return err
	}
	group, created, err := cure.CreateGroups(init, criu, watched, view, r.Warn)
	if len(created) > 0 {
		r.note(fmt.Sprintf("%d control groups created in %q that systemd watches and CRIU does not recreate: %s",
			len(created), group, report.Listed(created)))
	}
	return err
}
