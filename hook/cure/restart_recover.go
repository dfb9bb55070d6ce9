package cure

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/systemd"
)

// jobTime is how long a run waits for the jobs of an interrupted run.
const jobTime = 2 * time.Second

// finishRestarts restores covers and copies mounts after unit restarts of interrupted runs.
func (s *Session) finishRestarts(ctx context.Context) error {
	paths := map[string]bool{}
	covers, coversErr := journal.Covers.All(s.journal, s.container.Init)
	for _, entry := range covers {
		if saved, err := entry.Peek(); err == nil {
			paths[saved.Path] = true
		}
	}
	restarts, err := journal.UnitRestarts.All(s.journal, s.container.Init)
	for _, entry := range restarts {
		if restart, err := entry.Peek(); err == nil {
			paths[restart.Path] = true
		}
	}
	if err := errors.Join(coversErr, err); err != nil {
		return err
	}
	if len(paths) > 0 {
		if err := s.awaitPendingJobs(ctx, paths); err != nil {
			return err // the entries stay, so that no other operation uses these mounts
		}
	}
	return errors.Join(s.restoreCovers(ctx), s.copyRestarted(ctx))
}

// awaitPendingJobs waits for the unit jobs that an interrupted run has queued, given the
// paths of their mounts. A job in systemd's queue may still detach all mounts at its path.
// A unit that failed to start is started.
func (s *Session) awaitPendingJobs(ctx context.Context, paths map[string]bool) error {
	manager, err := s.container.Manager(ctx, s.container.Init.PID())
	if err != nil {
		return fmt.Errorf("wait for the jobs of systemd: %w", err)
	}
	wait, cancel := context.WithTimeout(ctx, jobTime)
	defer cancel()
	var errs []error
	for path := range paths {
		errs = append(errs, manager.AwaitAutomount(wait, systemd.UnitNameFromPath(path, "automount")))
	}
	return errors.Join(append(errs, s.container.ReadTables())...)
}

// copyRestarted copies the mounts of restarted units to other namespaces, if interrupted
// runs have not. It runs after restoreCovers, because the copies include the covers.
func (s *Session) copyRestarted(ctx context.Context) error {
	entries, err := journal.UnitRestarts.All(s.journal, s.container.Init)
	errs := []error{err}
	for _, entry := range entries {
		errs = append(errs, s.copyRestartedOf(ctx, entry))
	}
	return errors.Join(errs...)
}

func (s *Session) copyRestartedOf(ctx context.Context, entry *journal.Entry[journal.UnitRestart]) error {
	restart, err := entry.Load()
	if err != nil {
		return err
	}
	now := autofsAt(s.container.Main().Table, restart.Path)
	if now == nil {
		return nil // its unit may still mount it: left to the next run
	}
	if device := mounts.DeviceOf(now); device != restart.Device {
		if err := s.copyElsewhere(ctx, restart.Path, restart.Device, device, s.mainSpace().copyFunc(ctx, restart.Path, device)); err != nil {
			return err
		}
	}
	return errors.Join(entry.Commit(), s.container.ReadTables())
}
