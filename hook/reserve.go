package hook

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/anondev"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/criuimage"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/helper/fdstore"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/stage"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
	"golang.org/x/sys/unix"
)

// reserve works before the restored processes exist: it reads the images and
// holds those device numbers that a systemd remembers, so that neither the
// container's own new mounts nor other ones get them.
func (r Runner) reserve(ctx context.Context, e Event) error {
	if has, err := hasAutofs(e.ImageDir); err != nil || !has {
		return err
	}
	set, err := readImages(e.ImageDir)
	if err != nil {
		return err
	}
	if watched, err := readWatches(e.ImageDir); err != nil {
		r.Warn(err)
	} else if text := imageObstacles(set, watched); text != "" {
		r.note(text)
	}
	handover := &journal.Handover{Stage: stage.Reserve, Devices: journal.OldDevices(set)}
	r.Warn = report.CollectWarnings(r.Warn, &handover.Warnings)
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
	if have, err := r.journal().LoadHandover(criu); err == nil && have != nil {
		return nil // called twice for this stage
	}
	r.journal().Sweep()
	pool := r.reserveNumbers(ctx, handover)
	defer pool.Close()
	var files []*os.File
	for _, f := range pool.Held() {
		files = append(files, f)
	}
	if err := r.hold(criu, handover, files); err != nil {
		r.Warn(err)
	}
	if err := r.journal().SaveHandover(criu, handover); err != nil {
		return errors.Join(err, handover.Holder.Stop(ctx))
	}
	return nil
}

// reserveNumbers holds those of the wanted numbers that are free.
func (r Runner) reserveNumbers(ctx context.Context, handover *journal.Handover) *anondev.Pool {
	pool := anondev.New(handover.Wanted())
	lock, err := r.journal().LockDevices(ctx)
	if err != nil {
		r.Warn(err)
		return pool
	}
	defer lock.Close()
	if err := pool.Fill(ctx); err != nil {
		r.Warn(err)
	}
	pool.Trim()
	return pool
}

// hold starts a helper that keeps the files open and notes it in the handover.
func (r Runner) hold(criu *nsenter.Process, handover *journal.Handover, files []*os.File) error {
	handover.Holder = fdstore.Ref{}
	if len(files) == 0 {
		return nil
	}
	model := container.OpenEngine(criu)
	if model != nil {
		defer model.Close()
	}
	var err error
	handover.Holder, err = fdstore.Start(fdstore.Request{Bound: criu, Model: model, Lifetime: restoreTime, Files: files})
	if errors.Is(err, fdstore.ErrNotMoved) {
		r.Warn(err)
		return nil
	}
	return err
}

// hasAutofs tells from the names of the images alone whether there is work.
func hasAutofs(dir string) (bool, error) {
	has, err := namedAutofs(dir)
	if errors.Is(err, criuimage.ErrNoImages) || errors.Is(err, fs.ErrNotExist) {
		return false, nil // no mount namespace of its own was checkpointed
	}
	return has, err
}

// namedAutofs is hasAutofs with an error where the images are not to be seen.
func namedAutofs(dir string) (bool, error) {
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		defer f.Close()
		var has bool
		if has, err = criuimage.HasAutofs(f); err == nil {
			return has, nil
		}
	}
	return false, fmt.Errorf("checkpoint images: %w", err)
}
