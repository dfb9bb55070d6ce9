package cure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/systemd"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
)

// jobTime bounds how long a run waits for the job of an interrupted one: the other
// mounts need time, too.
const jobTime = 2 * time.Second

// finishRestarts does what interrupted runs have not come to after they had units
// restarted.
func (s *Session) finishRestarts(ctx context.Context) error {
	paths := map[string]bool{}
	covers, coversErr := journal.CoversSaved.All(s.journal, s.container.Init)
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
			return err // the entries stay, and no other operation starts with these mounts
		}
	}
	return errors.Join(s.restoreCovers(ctx), s.copyRestarted(ctx))
}

// awaitPendingJobs waits for unit jobs that an interrupted run has queued, by the
// paths of their mounts. A job that is still in systemd's queue could detach mounts
// beneath us. A unit that could not be started again is started.
func (s *Session) awaitPendingJobs(ctx context.Context, paths map[string]bool) error {
	manager, err := s.container.Manager(ctx, s.container.Init.PID())
	if err != nil {
		return fmt.Errorf("finish the restart of units: %w", err)
	}
	wait, cancel := context.WithTimeout(ctx, jobTime)
	defer cancel()
	var errs []error
	for path := range paths {
		errs = append(errs, manager.AwaitAutomount(wait, systemd.UnitNameFromPath(path, "automount")))
	}
	return errors.Join(append(errs, s.container.ReadTables())...)
}

// copyRestarted copies the mounts of restarted units where interrupted runs have not.
// It is after restoreCovers: the copies have the covers.
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
		return nil // its unit may still mount it: the next run looks again
	}
	if fresh := mounts.DeviceOf(now); fresh != restart.Device {
		if err := s.copyElsewhere(ctx, restart.Path, restart.Device, fresh, s.spaceOf(nil).copyFunc(ctx, restart.Path, fresh)); err != nil {
			return err
		}
	}
	return errors.Join(entry.Commit(), s.container.ReadTables())
}

// copyElsewhere puts copies of the mount that a master has recreated in the place
// of the old one, in the mount namespaces that it has not propagated to.
func (s *Session) copyElsewhere(ctx context.Context, path string, old, fresh uint64, copied func() (*os.File, error)) error {
	if len(s.showing(path, old, fresh)) == 0 {
		return nil // by the tables as they were read
	}
	if err := s.container.ReadTables(); err != nil {
		return err
	}
	others := s.showing(path, old, fresh)
	if len(others) == 0 {
		return nil
	}
	tree, err := copied()
	if err != nil {
		return err
	}
	defer tree.Close()
	r := &mounts.Replacement{Path: path, Old: old, New: tree, Device: fresh}
	return errors.Join(s.replace(ctx, others, []*mounts.Replacement{r}), r.Err)
}

// showing are the mount namespaces that show the old mount and not the new one.
func (s *Session) showing(path string, old, fresh uint64) []mounts.Space {
	return slices.DeleteFunc(s.container.MountSpaces(), func(sp mounts.Space) bool {
		return !sp.Shows(path, old) || sp.Shows(path, fresh)
	})
}
