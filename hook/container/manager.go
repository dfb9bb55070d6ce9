package container

import (
	"context"
	"errors"
	"fmt"
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

// WakeSystemd pings every restored systemd that serves a mount. A systemd that was
// checkpointed while its rate limit for mount events was in effect (src/core/mount.c)
// is not woken by the timer of that limit after the restore, and would process no mount
// event until its next wakeup. The error joins those of all systemds.
func (c *Container) WakeSystemd(ctx context.Context, snapshot *Snapshot) error {
	var errs []error
	seen := map[int]bool{}
	for i := range snapshot.Mounts {
		m := &snapshot.Mounts[i].Master
		if m.Kind != master.Systemd || seen[m.PID] || !snapshot.Restore && !m.Restored {
			continue
		}
		seen[m.PID] = true
		manager, err := c.Manager(ctx, m.PID)
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
