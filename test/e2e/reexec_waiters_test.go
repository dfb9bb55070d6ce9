package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// waiterLimit is how long a waiter from before the repair may wait.
var waiterLimit = lab.Limit(15 * time.Second)

// repairByHand runs the program as a person does, and returns its report.
func repairByHand(t *testing.T, r *lab.Restored, options ...string) lab.Report {
	t.Helper()
	args := append([]string{"repair", strconv.Itoa(r.PID), "--json"}, options...)
	result := lab.RunHook(t, nil, nil, args...)
	report := lab.ParseReport(t, result.Stdout)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repair %v: exit status %d\n%s%s", options, result.Status, result.Stderr, outcomes(report))
		}
	})
	if result.Status != 0 {
		t.Errorf("repair %v: exit status %d, want 0", options, result.Status)
	}
	return report
}

// outcomes describes a report in a few lines.
func outcomes(report lab.Report) string {
	var text strings.Builder
	for _, m := range report.Mounts {
		fmt.Fprintf(&text, "%s in %d: %s, %s -> %s: %s\n", m.Path, m.MountNamespace, m.Outcome, m.DeviceBefore, m.DeviceNow, m.Reason)
	}
	return text.String()
}

// checkCure checks that every mount of systemd has one outcome.
func checkCure(t *testing.T, report lab.Report, want string) {
	t.Helper()
	if report.Outcome != "repaired" {
		t.Errorf("report: outcome %q, want repaired", report.Outcome)
	}
	found := false
	for _, m := range report.Mounts {
		if m.Master.Kind != "systemd" {
			continue
		}
		found = true
		if m.Outcome != want {
			t.Errorf("report: %s: outcome %q (%s), want %s", m.Path, m.Outcome, m.Reason, want)
		}
	}
	if !found {
		t.Error("report: no mount of a systemd")
	}
}

// startAccesses starts accesses that are expected to hang until a repair. It sends their
// results when all have ended.
func startAccesses(t *testing.T, r *lab.Restored, accesses []lab.Access) <-chan []lab.Touch {
	t.Helper()
	ended := make(chan []lab.Touch, 1)
	go func() { ended <- r.TouchAccesses(t, accesses, waiterLimit) }()
	r.WaitStuck(t, len(accesses))
	return ended
}

func checkAnswered(t *testing.T, accesses []lab.Access, touches []lab.Touch) {
	t.Helper()
	for i, o := range touches {
		if a := accesses[i]; !a.Answers(o) {
			t.Errorf("%s (%s), waiting since before the repair: %s; want %q", a.Path, a.About, o, a.Content)
		}
	}
}

// TestReexecutedFreesWaiters corrects systemd's numbers while it has waiters: they
// resume, and read the content.
func TestReexecutedFreesWaiters(t *testing.T) {
	requireHook(t)
	for _, suite := range systemdVersions {
		t.Run(suite, func(t *testing.T) {
			s := sharedCheckpoint(t, lab.Options{Systemd: suite})
			r := restoreStale(t, s)
			accesses := systemdAccesses()
			// Three on each, and one more that is killed: systemd has its request.
			var waiting []lab.Access
			for range 3 {
				waiting = append(waiting, accesses...)
			}
			killed := lab.Access{Path: lab.Blank + "/" + lab.Marker}
			if o := r.Touch(t, killed.Path, 200*time.Millisecond); !o.Waiting {
				t.Fatalf("%s: %s; want it to hang", killed.Path, o)
			}
			ended := startAccesses(t, r, waiting)
			report := repairByHand(t, r, "--strategy", "reexec")
			checkAnswered(t, waiting, <-ended)
			checkCure(t, report, "reexecuted")
			released := make(map[string]int)
			for _, m := range report.Mounts {
				released[m.Path] += m.WaitersReleased
			}
			for _, path := range []string{lab.Idle, lab.Blank, lab.Binfmt} {
				if released[path] != 3 {
					t.Errorf("report: %s: waiters_released %d, want 3", path, released[path])
				}
			}
			checkNoWaiters(t, r.Container)
			r.CheckAnswers(t, lab.Accesses)
			checkUncovered(t, r.Container)
			r.CheckUntouched(t)
		})
	}
}

// TestReexecutedFlushesKilledWaiters has requests, already read by systemd, whose waiters
// were killed. Later accesses join such a request, and the kernel does not repeat it:
// systemd must answer it.
func TestReexecutedFlushesKilledWaiters(t *testing.T) {
	requireHook(t)
	s := checkpoint(t)
	r := restoreStale(t, s)
	accesses := systemdAccesses()
	for i, o := range r.TouchAccesses(t, accesses, 200*time.Millisecond) {
		if !o.Waiting {
			t.Fatalf("%s: %s; want it to hang", accesses[i].Path, o)
		}
	}
	checkNoWaiters(t, r.Container)
	checkCure(t, repairByHand(t, r, "--strategy", "reexec"), "reexecuted")
	r.CheckAnswers(t, accesses)
	r.CheckAnswers(t, lab.Accesses)
	checkUncovered(t, r.Container)
	r.CheckUntouched(t)
}

// TestRepairedTwice repairs a second time: corrected numbers and new mounts must stay.
func TestRepairedTwice(t *testing.T) {
	requireHook(t)
	s := checkpoint(t)
	for _, strategies := range [][2]string{
		{"reexec", "reexec"},
		{"reexec", "auto"},
		{"reexec", "restart"},
		{"restart", "reexec"},
		{"restart", "auto"},
		{"auto", "auto"},
	} {
		t.Run(strategies[0]+" "+strategies[1], func(t *testing.T) {
			r := restoreStale(t, s)
			for _, strategy := range strategies {
				repairByHand(t, r, "--strategy", strategy)
			}
			r.CheckAnswers(t, lab.Accesses)
			checkNoWaiters(t, r.Container)
			checkUncovered(t, r.Container)
		})
	}
}
