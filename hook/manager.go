package hook

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/owner"
)

// nameUnits names the unit of each mount that a systemd serves.
func nameUnits(list []Mount) {
	for i := range list {
		if m := &list[i]; m.Master.Kind == master.Systemd {
			m.Master.Unit = master.UnitNameFromPath(m.Path, "automount")
		}
	}
}

// wake has every restored systemd that serves a mount go through its events once.
// A systemd that was checkpointed while it ignored mount events for a moment
// (src/core/mount.c, a rate limit) is not woken by its timer after the restore,
// and would hear of no mount until something else happens to it.
func (s *Container) wake(ctx context.Context, snapshot *Snapshot) error {
	var errs []error
	seen := map[int]bool{}
	for i := range snapshot.Mounts {
		m := &snapshot.Mounts[i].Master
		if m.Kind != master.Systemd || seen[m.PID] || !snapshot.Restore && !m.Restored {
			continue
		}
		seen[m.PID] = true
		manager, err := s.manager(ctx, m.PID)
		if err == nil {
			err = manager.Ping(ctx)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// returnInterval is the pause between two attempts to reach a systemd that
// re-executes itself.
const returnInterval = 2 * time.Millisecond

// returnTime is how long a systemd may be without its socket.
const returnTime = time.Second

// absent reports whether no process listens on systemd's socket.
func absent(err error) bool {
	return errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist)
}

// manager returns the connection to the systemd with the given pid.
func (s *Container) manager(ctx context.Context, pid int) (*master.Manager, error) {
	if m := s.managers[pid]; m != nil {
		return m, nil
	}
	if err := s.silent[pid]; err != nil {
		return nil, err // asked before
	}
	p := s.masters[pid]
	if p == nil && pid == s.init.PID() {
		p = s.owner.First() // asked to finish what an interrupted run has asked for
	}
	if p == nil {
		return nil, fmt.Errorf("process %d: %w", pid, owner.ErrOutside)
	}
	m, err := master.Connect(ctx, p)
	// A systemd that re-executes itself has no socket for a moment.
	for end := time.Now().Add(returnTime); absent(err) && time.Now().Before(end) && ctx.Err() == nil; {
		time.Sleep(returnInterval)
		m, err = master.Connect(ctx, p)
	}
	if err != nil {
		s.silent[pid] = err
		return nil, err
	}
	s.managers[pid] = m
	return m, nil
}

// version asks a systemd for its version.
func (s *Container) version(ctx context.Context, pid int) (int, error) {
	manager, err := s.manager(ctx, pid)
	if err != nil {
		return 0, err
	}
	version, err := manager.Version(ctx)
	if err == nil || manager.Connected() {
		return version, err
	}
	// It re-executes itself, as a run that was killed has asked it to.
	wait, cancel := context.WithTimeout(ctx, returnTime)
	defer cancel()
	if err := s.awaitManager(wait, pid); err != nil {
		return 0, err
	}
	return s.managers[pid].Version(ctx)
}

// forgetManager closes the connection to a systemd.
func (s *Container) forgetManager(pid int) {
	if m := s.managers[pid]; m != nil {
		m.Close()
		delete(s.managers, pid)
	}
}

// awaitManager connects to a systemd that is starting again.
func (s *Container) awaitManager(ctx context.Context, pid int) error {
	for {
		m, err := s.manager(ctx, pid)
		if err == nil {
			if err = m.Ping(ctx); err == nil {
				return nil
			}
			s.forgetManager(pid)
		}
		delete(s.silent, pid)
		select {
		case <-time.After(returnInterval):
		case <-ctx.Done():
			return fmt.Errorf("systemd does not come back after its re-execution: %w", err)
		}
	}
}
