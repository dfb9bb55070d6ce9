package status

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
)

func TestRestore(t *testing.T) {
	m := New("v1", "containerd")
	mount := func(kind string, cure plan.Cure, released int) report.Mount {
		return report.Mount{Master: report.Master{Kind: kind}, Outcome: cure, WaitersReleased: released}
	}
	m.Restore(&report.Report{
		Outcome: report.Partial, DurationMS: 70, Waiting: make([]container.Waiter, 2),
		Mounts: []report.Mount{mount("systemd", plan.Preserved, 0), mount("automount", plan.Unrepaired, 3), mount("systemd", plan.Preserved, -7)},
	}, ByAgent)
	if v := testutil.ToFloat64(m.lastSuccess); v != 0 {
		t.Errorf("a partial repair is a success at %v", v)
	}
	m.Restore(&report.Report{Outcome: report.NothingToDo, DurationMS: 5}, ByActionScript)
	if v := testutil.ToFloat64(m.lastSuccess); time.Since(time.Unix(int64(v), 0)) > time.Minute {
		t.Errorf("the last success was at %v", v)
	}
	// What a report might hold that is not ours.
	m.Restore(&report.Report{Outcome: "\n# a label", Mounts: []report.Mount{mount("/usr/bin/evil", "magic", 0)}}, By("evil:trigger"))
	for name, test := range map[string]struct {
		counter prometheus.Counter
		want    float64
	}{
		"unrepaired":       {m.mounts.WithLabelValues("automount", "unrepaired"), 1},
		"preserved":        {m.mounts.WithLabelValues("systemd", "preserved"), 2},
		"foreign mount":    {m.mounts.WithLabelValues("other", "other"), 1},
		"nothing to do":    {m.restores.WithLabelValues("action-script", "nothing-to-do"), 1},
		"partial":          {m.restores.WithLabelValues("agent", "partial"), 1},
		"foreign outcome":  {m.restores.WithLabelValues("other", "other"), 1},
		"waiters left":     {m.waiting, 2},
		"waiters released": {m.released, 3},
	} {
		if got := testutil.ToFloat64(test.counter); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
	if problems, err := testutil.GatherAndLint(m.Registry); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

// TestSeries: every series is there from the start, and none is added.
func TestSeries(t *testing.T) {
	m := New("v1", "containerd")
	count := func() map[string]int {
		families, err := m.Registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		series := map[string]int{}
		for _, f := range families {
			if strings.HasPrefix(f.GetName(), namespace) {
				series[f.GetName()] = len(f.GetMetric())
			}
		}
		return series
	}
	before := count()
	if before["autofs_restore_restores_total"] != len(bys)*len(outcomes) || before["autofs_restore_mounts_total"] != len(kinds)*len(cures) {
		t.Errorf("at the start: %v", before)
	}
	for _, by := range append(bys, By("x")) {
		m.Restore(&report.Report{Outcome: "x", Mounts: []report.Mount{{Outcome: "x"}, {Outcome: plan.Unrepaired}}}, by)
	}
	if after := count(); !maps.Equal(before, after) {
		t.Errorf("later: %v, want %v", after, before)
	}
}

func TestBy(t *testing.T) {
	for trigger, want := range map[string]string{
		"criu:post-resume": ByActionScript, "oci:createRuntime": ByHook, "command:repair": ByPerson, "": other, "criu": other,
	} {
		if got := By(trigger); got != want {
			t.Errorf("By(%q) = %s, want %s", trigger, got, want)
		}
	}
}
