package container

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/owner"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/systemd"
)

// NameUnits sets the .automount unit of each mount that a systemd serves.
func NameUnits(list []Mount) {
	for i := range list {
		if m := &list[i]; m.Master.Kind == master.Systemd {
			m.Master.Unit = systemd.UnitNameFromPath(m.Path, "automount")
		}
	}
}

// DelayTimers corrects the timers of each systemd that serves a mount, while all processes
// are stopped, and returns the identifiers of those that need no call after the resume:
// see [systemd.DelayTimers].
func (c *Container) DelayTimers(list []Mount, mayHaveExpired bool, fractions map[int]time.Duration) (awake []string, err error) {
	var errs []error
	seen := map[int]bool{}
	for i := range list {
		m := &list[i].Master
		if m.Kind != master.Systemd || seen[m.PID] {
			continue
		}
		seen[m.PID] = true
		call, err := systemd.DelayTimers(c.Masters[m.PID].Process, mayHaveExpired, fractions)
		errs = append(errs, err)
		if !call {
			awake = append(awake, m.Identifier())
		}
	}
	return awake, errors.Join(errs...)
}

// Asleep returns the pids of the restored systemds that serve a mount and must be called:
// their timers may have expired without effect. awake are the identifiers of others.
func (c *Container) Asleep(snapshot *Snapshot, awake []string) []int {
	var pids []int
	for i := range snapshot.Mounts {
		m := &snapshot.Mounts[i].Master
		if m.Kind == master.Systemd && !slices.Contains(pids, m.PID) && !slices.Contains(awake, m.Identifier()) && (snapshot.Restore || m.Restored) {
			pids = append(pids, m.PID)
		}
	}
	return pids
}

// Wake calls each of the given systemds. The error joins those of all.
func (c *Container) Wake(ctx context.Context, pids []int) error {
	var errs []error
	for _, pid := range pids {
		manager, err := c.Manager(ctx, pid)
		if err == nil {
			err = manager.Ping(ctx)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// RetryInterval is the pause between two attempts, such as to connect to a systemd that
// is re-executing itself.
const RetryInterval = 2 * time.Millisecond

// socketTime is how long a systemd that re-executes itself may be without its socket.
const socketTime = time.Second

// Manager returns the connection to the systemd with the given pid, and connects to it if
// there is none. An error is final until [Container.AwaitManager]. It is
// owner.ErrOutside if the process is not the container's.
func (c *Container) Manager(ctx context.Context, pid int) (*systemd.Manager, error) {
	if m := c.Managers[pid]; m != nil {
		return m, nil
	}
	if err := c.unreachable[pid]; err != nil {
		return nil, err
	}
	p := c.Masters[pid]
	if p == nil && pid == c.Init.PID() {
		p = c.Owner.Init() // for the recovery of an interrupted run, before a survey
	}
	if p == nil {
		return nil, fmt.Errorf("process %d: %w", pid, owner.ErrOutside)
	}
	if c.Protect != nil {
		c.Protect()
	}
	m, err := systemd.Connect(ctx, p)
	for end := time.Now().Add(socketTime); systemd.IsReexecuting(err) && time.Now().Before(end) && ctx.Err() == nil; {
		time.Sleep(RetryInterval)
		m, err = systemd.Connect(ctx, p)
	}
	if err != nil {
		c.unreachable[pid] = err
		return nil, err
	}
	c.Managers[pid] = m
	return m, nil
}

// Version returns the version of a systemd, which it asks for, such as 252.
func (c *Container) Version(ctx context.Context, pid int) (int, error) {
	manager, err := c.Manager(ctx, pid)
	if err != nil {
		return 0, err
	}
	version, err := manager.Version(ctx)
	if err == nil || manager.Connected() {
		return version, err
	}
	// It is re-executing itself for an interrupted run.
	wait, cancel := context.WithTimeout(ctx, socketTime)
	defer cancel()
	if err := c.AwaitManager(wait, pid); err != nil {
		return 0, err
	}
	return c.Managers[pid].Version(ctx)
}

// ForgetManager closes the connection to a systemd and forgets it.
func (c *Container) ForgetManager(pid int) {
	if m := c.Managers[pid]; m != nil {
		m.Close()
		delete(c.Managers, pid)
	}
}

// AwaitSocket waits until a systemd that is re-executing itself has another private socket
// than before, at most 1 s: each attempt to connect to it costs a process, and takes
// processor time from it.
func (c *Container) AwaitSocket(ctx context.Context, pid int, before string) {
	p := c.Masters[pid]
	if p == nil || before == "" {
		return
	}
	for end := time.Now().Add(socketTime); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(RetryInterval) {
		if now := systemd.SocketID(p.Process); now != "" && now != before {
			return
		}
	}
}

// AwaitManager connects to a systemd that is re-executing itself, and waits until it
// answers or ctx ends.
func (c *Container) AwaitManager(ctx context.Context, pid int) error {
	for {
		m, err := c.Manager(ctx, pid)
		if err == nil {
			if err = m.Ping(ctx); err == nil {
				return nil
			}
			c.ForgetManager(pid)
		}
		delete(c.unreachable, pid)
		select {
		case <-time.After(RetryInterval):
		case <-ctx.Done():
			return fmt.Errorf("systemd does not answer after its re-execution: %w", err)
		}
	}
}
