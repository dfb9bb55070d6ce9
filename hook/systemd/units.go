package systemd

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

// Restart restarts a unit and waits for the result. A unit that reached its start limit,
// or failed for another temporary reason, is reset and started again. systemd detaches
// everything that is mounted at the unit's mount point: copy it first (mounts.CopyCovers).
func (m *Manager) Restart(ctx context.Context, name string) error {
	result, err := m.job(ctx, "RestartUnit", name)
	if err == nil && result == "done" {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("restart %s: %w", name, noAnswer(ctx, context.Cause(ctx)))
	}
	first := result
	if err != nil {
		first = err.Error()
	}
	if err := m.startAgain(ctx, name); err != nil {
		return fmt.Errorf("restart %s: %s; %w", name, first, err)
	}
	return nil
}

// jobInterval is the interval between two queries for a job.
const jobInterval = 2 * time.Millisecond

// AwaitAutomount waits until a unit has no job, and starts it if it has failed.
func (m *Manager) AwaitAutomount(ctx context.Context, name string) error {
	for {
		hasJob, state, err := m.jobAndState(ctx, name)
		switch {
		case err != nil:
			return err
		case hasJob:
		case state == "failed":
			return m.startAgain(ctx, name)
		default:
			return nil
		}
		select {
		case <-time.After(jobInterval):
		case <-ctx.Done():
			return fmt.Errorf("%s has a job, possibly queued by an interrupted run: %w", name, context.Cause(ctx))
		}
	}
}

// jobAndState returns whether a unit has a job, and its ActiveState.
func (m *Manager) jobAndState(ctx context.Context, name string) (hasJob bool, state string, err error) {
	object, err := m.unit(ctx, name)
	var job []any // number, object
	if err == nil {
		err = m.property(ctx, object, busName+".Unit", "Job", &job)
	}
	if err == nil {
		err = m.property(ctx, object, busName+".Unit", "ActiveState", &state)
	}
	if err != nil {
		return false, "", fmt.Errorf("job of %s: %w", name, err)
	}
	return len(job) > 0 && job[0] != uint32(0), state, nil
}

// startAgain starts a unit that has failed.
func (m *Manager) startAgain(ctx context.Context, name string) error {
	if err := m.call(ctx, "ResetFailedUnit", []any{name}); err != nil {
		return fmt.Errorf("reset-failed %s: %w", name, noAnswer(ctx, err))
	}
	if err := m.start(ctx, name); err != nil {
		return fmt.Errorf("start %s after reset-failed: %w", name, err)
	}
	return nil
}

// start starts a unit and waits for the result.
func (m *Manager) start(ctx context.Context, name string) error {
	result, err := m.job(ctx, "StartUnit", name)
	if err == nil && result != "done" {
		err = fmt.Errorf("job result %q", result)
	}
	return err
}

// StartMount queues a start of the .mount unit of an .automount unit. When that is active,
// or has failed, systemd answers all pending requests for it.
func (m *Manager) StartMount(ctx context.Context, automount string) error {
	var job dbus.ObjectPath
	if err := m.call(ctx, "StartUnit", []any{mountUnit(automount), replace}, &job); err != nil {
		return fmt.Errorf("start %s: %w", mountUnit(automount), noAnswer(ctx, err))
	}
	return nil
}

// Mounting reports whether systemd is about to start the .mount unit of an .automount unit.
func (m *Manager) Mounting(ctx context.Context, automount string) (bool, error) {
	hasJob, state, err := m.jobAndState(ctx, mountUnit(automount))
	return hasJob || state == "activating", err
}

func mountUnit(automount string) string {
	return strings.TrimSuffix(automount, ".automount") + ".mount"
}

// Version is systemd's version number, such as 252.
func (m *Manager) Version(ctx context.Context) (int, error) {
	var text string // "252.39-1~deb12u1"
	if err := m.property(ctx, managerPath, managerType, "Version", &text); err != nil {
		return 0, err
	}
	digits := strings.TrimLeft(text, "v")
	if i := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		digits = digits[:i]
	}
	version, err := strconv.Atoi(digits)
	if err != nil {
		return 0, fmt.Errorf("version of systemd: %.40s: %w", text, err)
	}
	return version, nil
}

// Connected reports whether systemd has not closed the connection.
func (m *Manager) Connected() bool { return m.conn.Connected() }

// Ping returns nil if systemd answers.
func (m *Manager) Ping(ctx context.Context) error {
	var state string
	return m.property(ctx, managerPath, managerType, "SystemState", &state)
}

// UnitNameFromPath is systemd's name for the unit of a path
// (src/basic/unit-name.c, unit_name_path_escape): "/a b/c" with the suffix
// "automount" is `a\x20b-c.automount`. go-systemd's escape is not used: it
// writes control characters with one hexadecimal digit.
func UnitNameFromPath(path, suffix string) string {
	trimmed := strings.Trim(path, "/")
	if trimmed == "" {
		return "-." + suffix
	}
	const plain = ":_.abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	var b strings.Builder
	for i := range len(trimmed) {
		switch c := trimmed[i]; {
		case c == '/':
			b.WriteByte('-')
		case strings.IndexByte(plain, c) < 0 || (c == '.' && i == 0):
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String() + "." + suffix
}
