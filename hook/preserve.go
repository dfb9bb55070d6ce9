package hook

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/cure"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/stage"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// preserve runs at CRIU's pre-resume: all processes are stopped, there are no waiters,
// and the images are still readable. It recreates the mounts that a systemd serves with
// the device numbers that this systemd remembers, replaces stale triggers of automount
// by parking mounts, and starts a helper that keeps open the roots of mounts that still
// need a repair.
//
// The program needs no sealed copy of itself: none of its processes enters the container's
// pid namespace, and none of the container's runs.
func (r Runner) preserve(ctx context.Context, e Event) error {
	has, imagesErr := imagesHaveAutofs(e.ImageDir)
	if imagesErr == nil && !has {
		return nil
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
	lock, err := r.journal().Lock(ctx, criu)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	repairs, err := r.lockRepairs(ctx, init)
	if err != nil {
		return err // Repair cures the mounts
	}
	defer repairs.Unlock()
	handover := r.handoverToPreserve(criu, e)
	if handover.Stage == stage.Preserve || handover.Stage == stage.Repair {
		return nil // called twice for this stage
	}
	r.Warn = report.CollectWarnings(r.Warn, &handover.Warnings)
	sys.ExpandFiles(filesOfRun + filesOfMount*len(handover.Devices))
	c, err := container.Open(init, false)
	if err != nil {
		return errors.Join(e.unlessHost(err), handover.StopHelpers(ctx))
	}
	defer c.Close()
	if !c.HasAutofs() {
		return handover.StopHelpers(ctx)
	}
	return r.preserveContainer(ctx, c, criu, handover)
}

// These are the files that Preserve has open at once: its own, and for each mount its root,
// the new mount and a copy of that. The placeholders of device numbers are not among them.
// The numbers are no higher than needed: the end of a short run waits for the expansion.
const (
	filesOfRun   = 32
	filesOfMount = 3
)

// repairsTime is how long Preserve waits for another run on the container, while the
// container's processes are stopped.
const repairsTime = 500 * time.Millisecond

// lockRepairs takes the container's lock.
func (r Runner) lockRepairs(ctx context.Context, init *nsenter.Process) (*journal.Lock, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, repairsTime, errors.New("a repair of the container is running"))
	defer cancel()
	return r.journal().Lock(ctx, init)
}

// preserveContainer preserves the mounts of an open container and saves the handover
// for Repair.
func (r Runner) preserveContainer(ctx context.Context, c *container.Container, criu *nsenter.Process, handover *journal.Handover) error {
	handover.Init, handover.Stage = c.Init.Identity(), stage.Preserve
	session := cure.NewSession(c, r.journal(), r.Warn)
	defer session.Close()
	if err := session.Preserve(ctx, criu, handover); err != nil {
		r.Warn(err)
	}
	roots, err := session.RootsToKeep(ctx, handover)
	if err != nil {
		r.Warn(err)
	}
	if handover.Helper, err = r.startHelper(criu, roots); err != nil {
		r.Warn(err)
		handover.Roots = nil
	}
	if err := r.journal().SaveHandover(criu, handover); err != nil {
		return errors.Join(err, handover.Helper.Stop(ctx))
	}
	return nil
}

// handoverToPreserve returns the handover of Reserve. If there is none it reads the old
// device numbers from the images. Without images the handover is empty, and Repair
// decides by systemd's state.
func (r Runner) handoverToPreserve(criu *nsenter.Process, e Event) *journal.Handover {
	handover, err := r.journal().LoadHandover(criu)
	if err != nil {
		r.Warn(err)
	}
	if handover != nil {
		return handover
	}
	has, err := hasAutofs(e.ImageDir)
	if err == nil && has {
		set, imagesErr := readImages(e.ImageDir)
		if imagesErr == nil {
			return &journal.Handover{Devices: journal.OldDevices(set)}
		}
		err = imagesErr
	}
	if err != nil {
		r.Warn(err)
	}
	return &journal.Handover{}
}
