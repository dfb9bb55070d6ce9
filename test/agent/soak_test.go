package agent

import (
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
	"github.com/autofs-restore-hook/autofs-restore-hook/test/metrics"
)

// TestSoak restores again and again, in turn with and without the action
// script: SOAK times, or 6. The metrics must say what happened, and the agent
// must not grow.
func TestSoak(t *testing.T) {
	rounds := lab.IntFromEnvironment(t, "SOAK", 2, 6)
	d := startContainerd(t)
	p := newPod(t, d, withoutInstall)
	p.start(t)
	p.ready(t)
	c := checkpointed(t, d)
	began := time.Now()
	var early metrics.Samples
	scripts := 0
	for i := range rounds {
		if i%2 == 0 {
			lab.InstallActionScript(t, lab.Hook())
			scripts++
		} else {
			lab.InstallGroupsOnly(t, c.groups)
		}
		c.restore(t)
		lab.Eventually(t, 15*time.Second, "the restore is counted", func() bool {
			return p.metrics(t).Sum("restores_total", "") > float64(i)
		})
		if i == rounds-1 {
			c.CheckAnswers(t, lab.Accesses)
		}
		c.end(t)
		if i == min(20, rounds/2) {
			early = p.metrics(t)
		}
	}
	s := p.counted(t, float64(rounds))
	by, own := float64(scripts), float64(rounds-scripts)
	s.Expect(t, map[string]float64{
		"restores_total{by=action-script,outcome=repaired}": by,
		"restores_total{by=agent,outcome=repaired}":         own,
		"mounts_total{master=systemd,outcome=preserved}":    c.mounts.systemd * by,
		"mounts_total{master=systemd,outcome=reexecuted}":   c.mounts.systemd * own,
		"mounts_total{master=automount,outcome=reloaded}":   c.mounts.direct * float64(rounds),
		"mounts_total{master=automount,outcome=healthy}":    c.mounts.indirect * float64(rounds),
		"reaction_seconds":        own,
		"missed_restores_total":   0,
		"failed_runs_total":       0,
		"ended_restores_total":    0,
		"repairs_queued":          0,
		"engine_reconnects_total": 0,
	})
	t.Logf("%d restores in %s", rounds, time.Since(began).Round(time.Millisecond))
	s.CheckGrowth(t, early)
}
