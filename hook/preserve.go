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
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// preserve works at CRIU's pre-resume: all processes are stopped, none waits on
// any mount, and the images can still be read. It recreates the mounts that a
// systemd serves with the device numbers that this systemd remembers, puts parking
// mounts in the place of stale triggers of automount, and has a helper keep the
// roots of mounts open that still need a repair.
//
// No sealed copy of the program is needed: no process of ours enters the container's
// pid namespace, and none of the container's runs.
func (r Runner) preserve(ctx context.Context, e Event) error {
	has, imagesErr := namedAutofs(e.ImageDir)
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
		return err // Repair does it
	}
	defer repairs.Unlock()
	handover := r.handoverToPreserve(criu, e)
	if handover.Stage == stage.Preserve || handover.Stage == stage.Repair {
		return nil // called twice for this stage
	}
	r.Warn = report.CollectWarnings(r.Warn, &handover.Warnings)
	sc, err := container.Open(init, false)
	if err != nil {
		return errors.Join(e.unlessHost(err), handover.Holder.Stop(ctx))
	}
	defer sc.Close()
	if !sc.HasAutofs() {
		return handover.Holder.Stop(ctx)
	}
	return r.preserveContainer(ctx, sc, criu, handover)
}

// repairsTime is how long Preserve waits for a repair that a person or an agent has
// started. The container's processes are stopped meanwhile.
const repairsTime = 500 * time.Millisecond

// lockRepairs takes the container's lock.
func (r Runner) lockRepairs(ctx context.Context, init *nsenter.Process) (*journal.Lock, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, repairsTime, errors.New("a repair of the container is under way"))
	defer cancel()
	return r.journal().Lock(ctx, init)
}

// preserveContainer preserves the mounts of an open container and hands over to Repair.
func (r Runner) preserveContainer(ctx context.Context, sc *container.Container, criu *nsenter.Process, handover *journal.Handover) error {
	handover.Init, handover.Stage = sc.Init.Identity(), stage.Preserve
	session := cure.NewSession(sc, r.journal(), r.Warn)
	defer session.Close()
	if err := session.Preserve(ctx, criu, handover); err != nil {
		r.Warn(err)
	}
	roots, err := session.RootsToKeep(handover)
	if err != nil {
		r.Warn(err)
	}
	if err := r.hold(criu, handover, roots); err != nil {
		r.Warn(err)
		handover.Roots = nil
	}
	if err := r.journal().SaveHandover(criu, handover); err != nil {
		return errors.Join(err, handover.Holder.Stop(ctx))
	}
	return nil
}

// handoverToPreserve is what Reserve left. Without it, it is what Reserve would have
// read from the images; without these systemd's state decides, later.
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
