package hook

import (
	"fmt"
	"os"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/cgroup"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/criuimage"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/cure"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
	"golang.org/x/sys/unix"
)

// prepare works when the restored container's control group is known and its
// processes do not exist yet but for the first. systemd watches cgroup.events of
// every unit's group; CRIU recreates those that hold processes, and a restore fails
// where a watched file is absent ("fsnotify: Unable to open"). An active mount unit
// and a slice hold none. So the groups that the images say are watched are
// created, within the container's own group.
//
// Version 1 needs none of this: there systemd does not watch its groups
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
	own, err := cgroup.HasOwnNamespace(init)
	if err != nil {
		return err
	}
	view := cure.HostView
	if own {
		view = cure.OwnView
	}
	return r.createGroups(init, criu, e.ImageDir, view)
}

// createGroups creates the groups that systemd watches, and notes which.
func (r Runner) createGroups(init, criu *nsenter.Process, dir string, view cure.GroupView) error {
	watched, err := readWatches(dir)
	if err != nil {
		return err
	}
	own, created, err := cure.CreateGroups(init, criu, watched, view, r.Warn)
	if len(created) > 0 {
		r.note(fmt.Sprintf("%d control groups created in %q that systemd watches and CRIU does not recreate: %s",
			len(created), own, report.Listed(created)))
	}
	return err
}

func readWatches(dir string) (*criuimage.Watched, error) {
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		defer f.Close()
		var watched *criuimage.Watched
		if watched, err = criuimage.ReadWatches(f); err == nil {
			return watched, nil
		}
	}
	return nil, fmt.Errorf("checkpoint images: %w", err)
}
