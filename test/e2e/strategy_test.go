package e2e

import (
	"strconv"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestStrategies repairs by command a container that was restored without the
// program, with each of the strategies and the images at hand.
func TestStrategies(t *testing.T) {
	requireHook(t)
	s := checkpoint(t)
	for strategy, cure := range map[string]string{"preserve": "preserved", "restart": "restarted", "auto": "preserved"} {
		t.Run(strategy, func(t *testing.T) {
			forgetReports(t) // a container restored before had the same name
			r := restoreStale(t, s)
			result := lab.RunHook(t, nil, nil, "repair", strconv.Itoa(r.PID), "--images", s.Images, "--strategy", strategy, "--json")
			if result.Status != 0 {
				t.Errorf("exit status %d: %s", result.Status, result.Stderr)
			}
			t.Logf("repaired in %s", result.Took)
			report := lab.ParseReport(t, result.Stdout)
			checkReport(t, report, r)
			for _, m := range report.Mounts {
				if m.Master.Kind == "systemd" && m.Outcome != cure {
					t.Errorf("%s: %s (%s), want %s", m.Path, m.Outcome, m.Reason, cure)
				}
			}
			checkUnits(t, s, r)
			checkThawed(t, r)
			lab.WaitNoneRunning(t, 0)
			r.CheckAnswers(t, lab.Accesses)
			checkNoWaiters(t, r.Container)
			checkUncovered(t, r.Container)
			r.Kill(t)
		})
	}
}

// TestForeignImages repairs with the images of another container. What they say
// is not true of this one: it must be repaired all the same, and no number of
// theirs may count as preserved.
func TestForeignImages(t *testing.T) {
	requireHook(t)
	foreign := take(t, lab.Options{Plain: true})
	s := checkpoint(t)
	r := restoreStale(t, s)
	result := lab.RunHook(t, nil, nil, "repair", strconv.Itoa(r.PID), "--images", foreign.Images, "--json")
	t.Logf("exit status %d: %s", result.Status, result.Stderr)
	if result.Status == 0 {
		checkReport(t, lab.ParseReport(t, result.Stdout), r)
		r.CheckAnswers(t, lab.Accesses)
	}
}
