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

// askSystemd adds what the masters' systemd says about their units. What
// cannot be learned is noted as the mount's problem, not returned: one systemd
// that does not answer must not keep the others from being repaired.
func (s *scene) askSystemd(ctx context.Context, list []Mount) {
	paths := map[int][]string{}
	for i := range list {
		m := &list[i]
		if m.Master.Kind == master.Systemd {
			m.Master.Unit = master.UnitNameFromPath(m.Path, "automount")
		}
		if m.Master.Kind == master.Systemd && m.Main && !m.knownHealthy() {
			paths[m.Master.PID] = append(paths[m.Master.PID], m.Path)
		}
	}
	for pid, wanted := range paths {
		units, err := s.automountUnits(ctx, pid, wanted)
		for i := range list {
			if list[i].Master.Kind != master.Systemd || list[i].Master.PID != pid || list[i].knownHealthy() {
				continue
			}
			m := &list[i].Master
			unit, known := units[list[i].Path]
			switch {
			case err != nil:
				m.Problem, m.Unanswered = err.Error(), true
			case !known:
				m.Problem = "systemd has no .automount unit for this path"
			default:
				m.Unit, m.UnitActive, m.UnitSince = unit.Name, unit.Active(), unit.Since
			}
		}
	}
}

// wake has every systemd that serves a mount go through its events once. A
// systemd that was checkpointed while it ignored mount events for a moment
// (src/core/mount.c, a rate limit) is not woken by its timer after the restore,
// and would hear of no mount until something else happens to it.
func (s *scene) wake(ctx context.Context, list []Mount) error {
	var errs []error
	seen := map[int]bool{}
	for i := range list {
		m := &list[i].Master
		if m.Kind != master.Systemd || seen[m.PID] {
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

func (s *scene) automountUnits(ctx context.Context, pid int, paths []string) (map[string]master.Unit, error) {
	manager, err := s.manager(ctx, pid)
	if err != nil {
		return nil, err
	}
	units, err := manager.Automounts(ctx, paths)
	if err == nil || manager.Connected() {
		return units, err
	}
	// It re-executes itself, as a run that was killed has asked it to.
	wait, cancel := context.WithTimeout(ctx, returnTime)
	defer cancel()
	if err := s.awaitManager(wait, pid); err != nil {
		return nil, err
	}
	return s.managers[pid].Automounts(ctx, paths)
}

// returnTime is how long a systemd may be without its socket.
const returnTime = time.Second

// absent reports whether nobody listens on systemd's socket.
func absent(err error) bool {
	return errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist)
}

// manager returns the connection to the systemd with the given pid.
func (s *scene) manager(ctx context.Context, pid int) (*master.Manager, error) {
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
