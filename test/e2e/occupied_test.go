package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestAllNumbersOccupied restores where other file systems have every device number of
// the container. Nothing may be lost or incomplete.
func TestAllNumbersOccupied(t *testing.T) {
	requireHook(t)
	s := sharedCheckpoint(t, lab.Options{MountRateLimit: true})
	r := restoreWithHook(t, s, lab.RestoreOptions{Before: func() { lab.HoldNumbersUpTo(t, s.highest) }})

	report := r.ReadReport(t)
	checkReport(t, report, r)
	checkRestarted(t, report, lab.Idle, lab.Blank, lab.Binfmt, lab.Covered, lab.Stacked)
	for _, change := range lab.Changes(withoutAutofsOptions(s.forest), withoutAutofsOptions(r.Forest(t))) {
		t.Errorf("mounts: changed since the checkpoint: %s", change)
	}
	r.CheckAnswers(t, lab.Accesses)
	checkNoWaiters(t, r.Container)
	checkUncovered(t, r.Container)
	lab.WaitNoneRunning(t, 0)
}

// TestOneNumberOccupied restores where another file system has one number: only that
// mount is restarted.
func TestOneNumberOccupied(t *testing.T) {
	requireHook(t)
	s := sharedCheckpoint(t, lab.Options{MountRateLimit: true})
	taken := s.autofs[lab.Idle].Minor
	r := restoreWithHook(t, s, lab.RestoreOptions{Before: func() {
		lab.HoldNumbersUpTo(t, uint32(taken)).KeepOnly(t, taken)
	}})
	report := r.ReadReport(t)
	checkReport(t, report, r)
	checkRestarted(t, report, lab.Idle)
	for _, m := range report.Mounts {
		if m.Master.Kind == "systemd" && m.Path != lab.Idle && m.Outcome != "preserved" {
			t.Errorf("report: %s: outcome %q (%s), want preserved", m.Path, m.Outcome, m.Reason)
		}
	}
	checkUnits(t, s, r)
	r.CheckAnswers(t, lab.Accesses)
	checkNoWaiters(t, r.Container)
}

// checkRestarted checks that the paths were restarted, in all namespaces, and that the
// mount of systemd's own namespace has the reason: the number is taken.
func checkRestarted(t *testing.T, report lab.Report, paths ...string) {
	t.Helper()
	explained := make(map[string]bool)
	for _, m := range report.Mounts {
		if !slices.Contains(paths, m.Path) {
			continue
		}
		if !slices.Contains([]string{"restarted", "reexecuted"}, m.Outcome) {
			t.Errorf("report: %s: outcome %q (%s), but another file system has its old number", m.Path, m.Outcome, m.Reason)
		}
		if strings.Contains(m.Reason, m.DeviceBefore) && strings.Contains(m.Reason, "another file system") {
			explained[m.Path] = true
		}
	}
	for _, path := range paths {
		if !explained[path] {
			t.Errorf("report: %s: the reason is not that another file system has its number", path)
		}
	}
}

// withoutAutofsOptions is a description of the forest with only the places of autofs
// mounts.
func withoutAutofsOptions(f lab.Forest) []string {
	var lines []string
	for _, line := range f.DescribePropagation() {
		if place, rest, isAutofs := strings.Cut(line, " root "); isAutofs && strings.Contains(rest, " autofs ") {
			line = fmt.Sprintf("%s autofs", place)
		}
		lines = append(lines, line)
	}
	return lines
}

// TestManyFreeNumbers restores where hundreds of lower device numbers are free, which the
// program must take.
func TestManyFreeNumbers(t *testing.T) {
	requireHook(t)
	held := lab.HoldNumbers(t, 700)
	s := take(t, lab.Options{})
	held.Release()
	r := restoreWithHook(t, s, lab.RestoreOptions{})
	checkPreserved(t, r)
	checkUnits(t, s, r)
	r.CheckAnswers(t, lab.Accesses)
	lab.WaitNoneRunning(t, helperLimit)
}
