package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// cures are the outcomes of a mount that works.
var cures = []string{"healthy", "preserved", "reexecuted", "restarted", "reloaded"}

func TestRepairedByActionScript(t *testing.T) {
	s := checkpoint(t)
	r := restoreWithHook(t, s, lab.RestoreOptions{})

	checkUnits(t, s, r)
	r.CheckAnswers(t, lab.Accesses)
	checkNoWaiters(t, r.Container)
	report := r.ReadReport(t)
	checkReport(t, report, r)
	for _, m := range report.Mounts {
		t.Logf("%-28s %s", m.Path, m.Outcome)
	}

	if stack := lab.Stack(t, r.PID, lab.Stacked); stack != "autofs < tmpfs < tmpfs" {
		t.Errorf("%s: %s, want autofs < tmpfs < tmpfs", lab.Stacked, stack)
	}
	checkUncovered(t, r.Container)
}

// TestRepairedWithSharedMounts is the same where mounts propagate between the
// namespaces of systemd's services, as under LXC and systemd-nspawn.
func TestRepairedWithSharedMounts(t *testing.T) {
	lab.RequireNode(t)
	s := sharedCheckpoint(t, lab.Options{Shared: true})
	r := restoreWithHook(t, s, lab.RestoreOptions{})
	checkUnits(t, s, r)
	r.CheckAnswers(t, lab.Accesses)
	checkNoWaiters(t, r.Container)
	checkReport(t, r.ReadReport(t), r)
	checkUncovered(t, r.Container)
}

// TestOldNumbersOccupied restores where other file systems own the device
// numbers that the masters remember, as after a migration.
func TestOldNumbersOccupied(t *testing.T) {
	s := checkpoint(t)
	r := restoreWithHook(t, s, lab.RestoreOptions{Before: func() { lab.HoldNumbersUpTo(t, s.highest) }})
	r.CheckAnswers(t, lab.Accesses)
	checkNoWaiters(t, r.Container)
	report := r.ReadReport(t)
	checkReport(t, report, r)
	for _, m := range report.Mounts {
		if m.Master.Kind == "systemd" && !slices.Contains([]string{"restarted", "reexecuted"}, m.Outcome) {
			t.Errorf("report: %s: outcome %q, but another file system has its old number", m.Path, m.Outcome)
		}
	}
	checkUncovered(t, r.Container)
}

// TestEveryNamespaceRepaired reads the automounts from services with their own mount
// namespaces: each has the superblock that the master serves, and none has a cover twice.
func TestEveryNamespaceRepaired(t *testing.T) {
	r := restoreWithHook(t, checkpoint(t), lab.RestoreOptions{})
	units := r.Units(t)
	init := lab.Autofs(t, r.PID)
	for _, name := range []string{"private-mounts", "mount-flags-private", "mount-flags-shared"} {
		pid := r.HostPID(t, units[name+".service"].MainPID)
		own := lab.Autofs(t, pid)
		for _, path := range []string{lab.Idle, lab.Blank, lab.Binfmt, lab.Covered, lab.Stacked} {
			switch {
			case own[path] == nil:
				t.Errorf("%s.service: no autofs at %s", name, path)
			case own[path].Minor != init[path].Minor:
				t.Errorf("%s.service: %s is device 0:%d, for systemd 0:%d", name, path, own[path].Minor, init[path].Minor)
			}
		}
		if stack := lab.Stack(t, pid, lab.Covered); stack != "autofs < tmpfs" {
			t.Errorf("%s.service: %s: %s, want autofs < tmpfs", name, lab.Covered, stack)
		}
	}
	r.CheckAnswers(t, lab.Accesses)
}

// checkReport compares the program's report with the container.
func checkReport(t *testing.T, report lab.Report, r *lab.Restored) {
	t.Helper()
	if report.Outcome != "repaired" {
		t.Errorf("report: outcome %q, want repaired", report.Outcome)
	}
	if report.Container != r.ID || report.PID != r.PID {
		t.Errorf("report: container %q, pid %d, want %q, %d", report.Container, report.PID, r.ID, r.PID)
	}
	reported := make(map[string]bool)
	for _, m := range report.Mounts {
		reported[m.Path] = true
		if !slices.Contains(cures, m.Outcome) {
			t.Errorf("report: %s: outcome %q (%s)", m.Path, m.Outcome, m.Reason)
		}
		want := "systemd"
		if slices.Contains([]string{lab.Direct, lab.Direct2, lab.Indirect}, m.Path) {
			want = "automount"
		}
		if m.Master.Kind != want {
			t.Errorf("report: %s: master %q, want %s", m.Path, m.Master.Kind, want)
		}
		if want == "systemd" && m.Master.Unit != lab.UnitName(m.Path, "automount") {
			t.Errorf("report: %s: unit %q", m.Path, m.Master.Unit)
		}
	}
	for path := range lab.Autofs(t, r.PID) {
		if !reported[path] {
			t.Errorf("report: nothing about %s", path)
		}
	}
}

// checkUnits reports every unit that has changed since the checkpoint, except those of
// mounts that the report has as restarted. It must be called before any touch, which
// starts mount units.
func checkUnits(t *testing.T, s *snapshot, r *lab.Restored) {
	t.Helper()
	excused := make(map[string]bool)
	var restarted []string
	for _, m := range r.ReadReport(t).Mounts {
		if m.Outcome == "restarted" {
			excused[m.Master.Unit] = true
			restarted = append(restarted, m.Path)
		}
	}
	for _, change := range changedUnits(s.units, r.Settle(t)) {
		unit, _, _ := strings.Cut(change, ": ")
		switch {
		case excused[unit]:
		case slices.ContainsFunc(restarted, func(path string) bool { return mayChange(path, unit, change) }):
			t.Logf("a unit has changed by a restart: %s", change)
		default:
			t.Errorf("a unit has changed by the repair: %s", change)
		}
	}
}

// mayChange reports whether a unit may change in this way because the automount at the
// path is restarted, as README.md describes: its cover is detached for a short time, and
// if systemd reads the mount table then, its unit becomes a new mount, and services with
// BindsTo= on it are stopped.
func mayChange(path, unit, change string) bool {
	cover, isMount := strings.CutSuffix(lab.UnitName(path, "mount"), ".mount")
	if strings.HasPrefix(unit, cover) && isMount && strings.HasSuffix(unit, ".mount") {
		return strings.Contains(change, "now {ActiveState:active SubState:mounted")
	}
	return path == lab.Covered && unit == "worker.service"
}

// hookLines returns the lines of CRIU's log that CRIU did not write.
func hookLines(log string) string {
	var out []string
	for line := range strings.Lines(log) {
		if !strings.HasPrefix(line, "(") && !strings.HasPrefix(line, "task_args") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}
