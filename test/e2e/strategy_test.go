package e2e

import (
	"strconv"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestStrategies repairs by command a container that was restored without the
// program, with each of the strategies.
func TestStrategies(t *testing.T) {
	requireHook(t)
	s := checkpoint(t)
	for strategy, cure := range map[string]string{"reexec": "reexecuted", "restart": "restarted", "auto": "reexecuted"} {
		t.Run(strategy, func(t *testing.T) {
			forgetReports(t) // an earlier container had the same name
			r := restoreStale(t, s)
			result := lab.RunHook(t, nil, nil, "repair", strconv.Itoa(r.PID), "--strategy", strategy, "--json")
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
			lab.WaitNoneRunning(t, 0)
			r.CheckAnswers(t, lab.Accesses)
			checkNoWaiters(t, r.Container)
			checkUncovered(t, r.Container)
			r.Kill(t)
		})
	}
}
