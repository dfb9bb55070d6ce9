package hook

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
)

// describeUnits names the unit of each mount, and asks the systemd of automount
// daemons for their services. What cannot be learned is noted as the mount's
// problem, not returned: one systemd that does not answer must not keep the
// others from being repaired.
func (s *scene) describeUnits(ctx context.Context, list []Mount) {
	for i := range list {
		if m := &list[i]; m.Master.Kind == master.Systemd {
			m.Master.Unit = master.UnitNameFromPath(m.Path, "automount")
		}
	}
	services := map[int]Master{}
	for i := range list {
		m := &list[i].Master
		if m.Kind != master.Automount || !list[i].Options.Type.Trigger() || list[i].Settled {
			continue
		}
		answer, known := services[m.PID]
		if !known {
			answer = *m
			s.describeService(ctx, &answer)
			services[m.PID] = answer
		}
		*m = answer
	}
}

// wake has every restored systemd that serves a mount go through its events once.
// A systemd that was checkpointed while it ignored mount events for a moment
// (src/core/mount.c, a rate limit) is not woken by its timer after the restore,
// and would hear of no mount until something else happens to it.
func (s *scene) wake(ctx context.Context, snapshot *Snapshot) error {
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

// describeService asks the container's first process, if that is a systemd,
// for the service that an automount daemon is the main process of.
func (s *scene) describeService(ctx context.Context, m *Master) {
	if m.ContainerPID == 1 {
		m.Problem = "it is the container's first process, which cannot be started again without ending the container"
		return
	}
	first, err := master.Identify(s.init)
	if err != nil || first.Kind != master.Systemd {
		s.describeAlone(m)
		return
	}
	manager, err := s.manager(ctx, s.init.PID())
	if err != nil {
		m.Problem = err.Error()
		return
	}
	service, err := manager.ServiceOf(ctx, m.ContainerPID)
	if err != nil {
		m.Problem = err.Error()
		return
	}
	m.Unit = service
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
	if p == nil {
		p = s.init // asked about a service of its own
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
