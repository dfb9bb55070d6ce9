package metrics

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook"
)

func TestRestore(t *testing.T) {
	m := New("v1", "containerd")
	mount := func(kind string, cure hook.Cure, released int) hook.MountReport {
		return hook.MountReport{Master: hook.MasterReport{Kind: kind}, Outcome: cure, WaitersReleased: released}
	}
	m.Restore(&hook.Report{
		Outcome: hook.Partial, DurationMS: 70, Waiting: make([]hook.Waiter, 2),
		Mounts: []hook.MountReport{mount("systemd", hook.Preserved, 0), mount("automount", hook.Unrepaired, 3), mount("systemd", hook.Preserved, -7)},
	}, ByAgent)
	if v := testutil.ToFloat64(m.lastSuccess); v != 0 {
		t.Errorf("a partial repair is a success at %v", v)
	}
	m.Restore(&hook.Report{Outcome: hook.NothingToDo, DurationMS: 5}, ByActionScript)
	if v := testutil.ToFloat64(m.lastSuccess); time.Since(time.Unix(int64(v), 0)) > time.Minute {
		t.Errorf("the last success was at %v", v)
	}
	// What a report might hold that is not ours.
	m.Restore(&hook.Report{Outcome: "\n# a label", Mounts: []hook.MountReport{mount("/usr/bin/evil", "magic", 0)}}, By("evil:trigger"))
	want := `
# HELP autofs_restore_mounts_total Autofs mounts of restored containers, by kind of master and outcome (the cure).
# TYPE autofs_restore_mounts_total counter
autofs_restore_mounts_total{master="automount",outcome="unrepaired"} 1
autofs_restore_mounts_total{master="other",outcome="other"} 1
autofs_restore_mounts_total{master="systemd",outcome="preserved"} 2
# HELP autofs_restore_restores_total Restores seen, by who repaired and the outcome of the whole.
# TYPE autofs_restore_restores_total counter
autofs_restore_restores_total{by="action-script",outcome="nothing-to-do"} 1
autofs_restore_restores_total{by="agent",outcome="partial"} 1
autofs_restore_restores_total{by="other",outcome="other"} 1
# HELP autofs_restore_waiters_left_total Processes that were still stuck when a repair ended.
# TYPE autofs_restore_waiters_left_total counter
autofs_restore_waiters_left_total 2
# HELP autofs_restore_waiters_released_total Processes that were stuck on automounts and were let go.
# TYPE autofs_restore_waiters_released_total counter
autofs_restore_waiters_released_total 3
`
	if err := testutil.GatherAndCompare(m.Registry, strings.NewReader(want), "autofs_restore_mounts_total",
		"autofs_restore_restores_total", "autofs_restore_waiters_left_total", "autofs_restore_waiters_released_total"); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.GatherAndLint(m.Registry); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

func TestBy(t *testing.T) {
	for trigger, want := range map[string]string{
		"criu:post-resume": ByActionScript, "oci:createRuntime": ByHook, "command:repair": ByPerson, "": byOther, "criu": byOther,
	} {
		if got := By(trigger); got != want {
			t.Errorf("By(%q) = %s, want %s", trigger, got, want)
		}
	}
}
