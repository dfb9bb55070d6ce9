package master

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

// Unit is what systemd says about one .automount unit.
type Unit struct {
	Name, Where           string
	ActiveState, SubState string
	// Since is when the unit last became active (CLOCK_REALTIME). systemd keeps
	// it through a checkpoint and restore.
	Since time.Time
}

// Active reports whether systemd believes that it serves the unit's mount.
func (u Unit) Active() bool { return u.ActiveState == "active" }

// maxUnitName is how long the name of a unit may be, in bytes
// (src/basic/unit-name.h, UNIT_NAME_MAX, with the zero at its end).
const maxUnitName = 255

// Automounts returns the active .automount units that serve the given mount
// points, by mount point. Where several units could serve a path, the one that
// says so itself (its property Where) wins.
func (m *Manager) Automounts(ctx context.Context, paths []string) (map[string]Unit, error) {
	var listed []listedUnit
	if err := m.call(ctx, "ListUnitsByPatterns", []any{[]string{}, []string{"*.automount"}}, &listed); err != nil {
		return nil, fmt.Errorf("list automount units: %w", noAnswer(ctx, err))
	}
	wanted := make(map[string]bool, len(paths))
	byName := make(map[string]string, len(paths))
	shortened := false
	for _, path := range paths {
		wanted[path] = true
		name := UnitNameFromPath(path, "automount")
		byName[name] = path
		shortened = shortened || len(name) > maxUnitName
	}
	// systemd shortens the name of a unit for a very long path to a hash, so a
	// name that is not expected may still belong to a wanted path.
	listed = slices.DeleteFunc(listed, func(u listedUnit) bool {
		return byName[u.Name] == "" && (!shortened || len(u.Name) != maxUnitName)
	})
	units := make(map[string]Unit, len(paths))
	for some := range slices.Chunk(listed, maxQuestions) {
		asked, err := m.automounts(ctx, some)
		if err != nil {
			return nil, err
		}
		for _, unit := range asked {
			if wanted[unit.Where] && (units[unit.Where].Name == "" || unit.Active()) {
				units[unit.Where] = unit
			}
		}
	}
	return units, nil
}

// maxQuestions bounds for how many units questions are open at a time.
const maxQuestions = 64

// automounts asks for the rest of what is to be known about units.
func (m *Manager) automounts(ctx context.Context, listed []listedUnit) ([]Unit, error) {
	where, since := make([]question, len(listed)), make([]question, len(listed))
	for i := range listed {
		where[i] = m.askProperty(ctx, listed[i].Object, busName+".Automount", "Where")
		since[i] = m.askProperty(ctx, listed[i].Object, busName+".Unit", "ActiveEnterTimestamp")
	}
	var units []Unit
	for i := range listed {
		unit, err := automount(ctx, &listed[i], where[i], since[i])
		var answer dbus.Error
		switch {
		case err == nil:
			units = append(units, unit)
		case errors.Is(err, errNoAutomount), errors.As(err, &answer):
			// The file of an active unit may be gone, and systemd reloaded: then it
			// serves a mount that it does not know. The others are not worse for it.
		default:
			return nil, err
		}
	}
	return units, nil
}

var errNoAutomount = errors.New("systemd named no ActiveState or no Where")

// listedUnit is an element of what ListUnitsByPatterns returns.
type listedUnit struct {
	Name, Description, LoadState, ActiveState, SubState, Following string

	Object  dbus.ObjectPath
	Job     uint32
	JobType string
	JobPath dbus.ObjectPath
}

func automount(ctx context.Context, listed *listedUnit, where, since question) (Unit, error) {
	u := Unit{Name: listed.Name, ActiveState: listed.ActiveState, SubState: listed.SubState}
	var usec uint64
	err := where.answer(ctx, &u.Where)
	if err == nil {
		err = since.answer(ctx, &usec)
	}
	if err == nil && (u.ActiveState == "" || u.Where == "") {
		err = errNoAutomount
	}
	if err != nil {
		return Unit{}, fmt.Errorf("%s: %w", listed.Name, err)
	}
	if usec > 0 {
		u.Since = time.UnixMicro(int64(usec))
	}
	return u, nil
}

// Restart restarts a unit and waits for the result. A unit that ran into its
// start limit, or failed for another passing reason, is reset and started once
// more. systemd detaches everything that is mounted at the unit's mount point:
// keep it first (package mounts).
func (m *Manager) Restart(ctx context.Context, name string) error {
	result, err := m.job(ctx, "RestartUnit", name, replace)
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

// jobInterval is the pause between two questions for a job.
const jobInterval = 2 * time.Millisecond

// AwaitAutomount waits until a unit has no job any more, and starts it if it has
// failed.
func (m *Manager) AwaitAutomount(ctx context.Context, name string) error {
	for {
		object, err := m.unit(ctx, name)
		var job []any // number, object
		var state string
		if err == nil {
			err = m.property(ctx, object, busName+".Unit", "Job", &job)
		}
		if err == nil {
			err = m.property(ctx, object, busName+".Unit", "ActiveState", &state)
		}
		switch {
		case err != nil:
			return fmt.Errorf("job of %s: %w", name, err)
		case len(job) > 0 && job[0] != uint32(0):
		case state == "failed":
			return m.startAgain(ctx, name)
		default:
			return nil
		}
		select {
		case <-time.After(jobInterval):
		case <-ctx.Done():
			return fmt.Errorf("%s has a job that an earlier run may have asked for: %w", name, context.Cause(ctx))
		}
	}
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

// start starts a unit and waits until that is done.
func (m *Manager) start(ctx context.Context, name string) error {
	result, err := m.job(ctx, "StartUnit", name, replace)
	if err == nil && result != "done" {
		err = fmt.Errorf("job result %q", result)
	}
	return err
}

// StartMount starts the .mount unit of an .automount unit. When it is up,
// systemd answers all requests for it that are open.
func (m *Manager) StartMount(ctx context.Context, automount string) error {
	name := strings.TrimSuffix(automount, ".automount") + ".mount"
	if err := m.start(ctx, name); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	return nil
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

// isNoSuchUnit recognises systemd's answer for a unit that it has not loaded.
func isNoSuchUnit(err error) bool {
	var dbusErr dbus.Error
	return errors.As(err, &dbusErr) && dbusErr.Name == "org.freedesktop.systemd1.NoSuchUnit"
}
