package hook

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/anondev"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/helper/fdstore"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/helper/spawn"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/stage"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"

	"golang.org/x/sys/unix"
)

// timerMargin is subtracted from the time that a timer had left at the checkpoint: CRIU
// restores timers up to a second early (see systemd.DelayTimers).
const timerMargin = 2 * time.Second

// reserve runs before the restored processes exist. It reads the images and reserves the
// free device numbers that a systemd remembers, so that no new mount, of the container
// or another one, gets them.
func (r Runner) reserve(ctx context.Context, e Event) error {
	if has, err := hasAutofs(e.ImageDir); err != nil || !has {
		return err
	}
	set, err := readImages(e.ImageDir)
	if err != nil {
		return err
	}
	handover := &journal.Handover{Stage: stage.Reserve, Devices: journal.OldDevices(set)}
	r.Warn = report.CollectWarnings(r.Warn, &handover.Warnings)
	watched, watchedErr := readWatches(e.ImageDir)
	if watchedErr != nil {
		r.Warn(watchedErr)
	} else if text := imageProblems(set, watched); text != "" {
		r.note(text)
	}
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
	if saved, err := r.journal().LoadHandover(criu); err == nil && saved != nil {
		return nil // called twice for this stage
	}
	r.journal().Sweep()
	// The restores in progress use the processor. A restore that begins later stops its
	// processes for a shorter time than one that shares the processor with many.
	if err := r.journal().TakePlace(ctx, criu, processors()); err != nil {
		if criu.Ended() {
			return err
		}
		r.Warn(err)
	}
	if watchedErr == nil {
		handover.NoTimerBefore, handover.Fractions = noTimerBefore(watched.NextTimer), watched.Fractions
	}
	// Until the handover says who keeps which numbers, no other restore looks for its own.
	devices, err := r.journal().LockDevices(ctx)
	if err != nil {
		r.Warn(err)
	} else {
		defer devices.Close()
	}
	return r.reserveNumbers(ctx, criu, handover, devices != nil)
}

// noTimerBefore returns a time before which no restored timer expires. left is the time that
// the next timer had left at the checkpoint, 0 if no timer was set.
func noTimerBefore(left time.Duration) time.Time {
	if left == 0 {
		left = restoreTime
	}
	return time.Now().Add(left - timerMargin)
}

// reserveNumbers takes the wanted device numbers that are free, if the machine's lock of
// them is held, and saves the handover.
func (r Runner) reserveNumbers(ctx context.Context, criu *nsenter.Process, handover *journal.Handover, locked bool) error {
	pool := anondev.New(handover.SystemdDevices())
	defer pool.Close()
	var lower []*os.File // the end of this process closes them
	if locked {
		if err := pool.Fill(ctx); err != nil {
			r.Warn(err)
		} else if !r.journal().OthersKeepLower(criu) {
			handover.Taken = pool.Missing()
		}
		lower = pool.TakeOthers()
		pool.Trim()
	}
	var files []*os.File
	for _, f := range pool.Placeholders() {
		files = append(files, f)
	}
	var err error
	if handover.Helper, err = r.startHelper(criu, files); err != nil {
		r.Warn(err)
	}
	if len(files) > 0 {
		if handover.Lower, err = r.startHelper(criu, lower); err != nil {
			r.Warn(err) // Preserve takes the numbers again
		}
	}
	if err := r.journal().SaveHandover(criu, handover); err != nil {
		return errors.Join(err, handover.StopHelpers(ctx))
	}
	return nil
}

// processors returns how many processors the machine's first process may use. This one may
// have fewer: runc starts CRIU in the container's control group.
func processors() int {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(1, &set); err != nil {
		return runtime.NumCPU()
	}
	return set.Count()
}

// startHelper starts a helper that keeps the files open until the restore ends. It starts
// none without files.
func (r Runner) startHelper(criu *nsenter.Process, files []*os.File) (fdstore.Ref, error) {
	if len(files) == 0 {
		return fdstore.Ref{}, nil
	}
	engine := container.OpenEngine(criu)
	if engine != nil {
		defer engine.Close()
	}
	helper, err := fdstore.Start(fdstore.Request{Bound: criu, Model: engine, Lifetime: restoreTime, Files: files})
	return helper, r.warnNotMoved(err)
}

// warnNotMoved makes a warning of the error that a helper process stayed in the container's
// control group: it runs. It returns any other error.
func (r Runner) warnNotMoved(err error) error {
	if errors.Is(err, spawn.ErrNotMoved) {
		r.Warn(err)
		return nil
	}
	return err
}
