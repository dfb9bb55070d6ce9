package e2e

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// automountAccesses returns the accesses to direct maps, which hang after a restore.
func automountAccesses() []lab.Access {
	var list []lab.Access
	for _, a := range lab.Accesses {
		if strings.HasPrefix(a.Path, lab.Direct) || strings.HasPrefix(a.Path, lab.Direct2) {
			list = append(list, a)
		}
	}
	return list
}

func waitersReleased(report lab.Report, path string) int {
	n := 0
	for _, m := range report.Mounts {
		if m.Path == path {
			n += m.WaitersReleased
		}
	}
	return n
}

// TestLateRepairReleasesAll repairs a container with 20 waiters on mounts of systemd and
// of automount, of which no root was opened before. All resume without an error.
func TestLateRepairReleasesAll(t *testing.T) {
	requireHook(t)
	s := checkpoint(t)
	r := restoreStale(t, s)
	var waiting []lab.Access
	for range 4 {
		waiting = append(waiting, systemdAccesses()...)
		waiting = append(waiting, automountAccesses()...)
	}
	if len(waiting) != 20 {
		t.Fatalf("%d accesses, want 20", len(waiting))
	}
	ended := startAccesses(t, r, waiting)
	report := repairByHand(t, r)
	checkAnswered(t, waiting, <-ended)
	if report.Outcome != "repaired" {
		t.Errorf("report: outcome %q, want repaired", report.Outcome)
	}
	for _, path := range []string{lab.Idle, lab.Blank, lab.Binfmt, lab.Direct, lab.Direct2} {
		if n := waitersReleased(report, path); n != 4 {
			t.Errorf("report: %s: waiters_released %d, want 4", path, n)
		}
	}
	checkNoWaiters(t, r.Container)
	r.CheckAnswers(t, lab.Accesses)
	checkUncovered(t, r.Container)
	r.CheckUntouched(t)
}

// TestLateRestartNamesWaiters restarts units with waiters on the old mounts, which only
// systemd can open: the waiters cannot be released, so the report names each, and the
// administrator may kill them.
func TestLateRestartNamesWaiters(t *testing.T) {
	requireHook(t)
	s := checkpoint(t)
	r := restoreStale(t, s)
	waiting := systemdAccesses()
	ended := make(chan []lab.Touch, 1)
	go func() { ended <- r.TouchAccesses(t, waiting, lab.TouchLimit) }()
	r.WaitStuck(t, len(waiting))
	result := lab.RunHook(t, nil, nil, "repair", strconv.Itoa(r.PID), "--json", "--strategy", "restart")
	report := lab.ParseReport(t, result.Stdout)
	if len(report.Waiting) != len(waiting) {
		t.Errorf("report: %d waiters, want %d: %+v", len(report.Waiting), len(waiting), report.Waiting)
	}
	for _, w := range report.Waiting {
		if w.PID == 0 || w.Command != "cat" || w.Path == "" {
			t.Errorf("report: waiting process %+v", w)
		}
	}
	if result.Status != 3 {
		t.Errorf("exit status %d, want 3", result.Status)
	}
	for _, o := range <-ended {
		if !o.Waiting {
			t.Errorf("%s; want it to wait for ever", o)
		}
	}
	r.CheckAnswers(t, lab.Accesses)
}

// TestKillWaiters kills, on request, waiters that cannot be released.
func TestKillWaiters(t *testing.T) {
	requireHook(t)
	s := checkpoint(t)
	r := restoreStale(t, s)
	waiting := systemdAccesses()
	ended := startAccesses(t, r, waiting)
	began := time.Now()
	result := lab.RunHook(t, nil, nil, "repair", strconv.Itoa(r.PID), "--json", "--strategy", "restart", "--kill-waiters")
	report := lab.ParseReport(t, result.Stdout)
	if result.Status != 0 || report.Outcome != "repaired" || len(report.Waiting) != 0 {
		t.Errorf("exit status %d, outcome %q, waiting %+v", result.Status, report.Outcome, report.Waiting)
	}
	refused := 0
	for _, m := range report.Mounts {
		refused += m.WaitersRefused
	}
	if refused != len(waiting) {
		t.Errorf("report: %d waiters refused, want %d", refused, len(waiting))
	}
	for _, o := range <-ended {
		if o.Hung || !o.Failed {
			t.Errorf("%s; want it to be killed", o)
		}
	}
	if took := time.Since(began); took > waiterLimit {
		t.Errorf("the last waiter ended after %s", took)
	}
	checkNoWaiters(t, r.Container)
	r.CheckAnswers(t, lab.Accesses)
}
