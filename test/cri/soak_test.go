package cri

import (
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
	"github.com/autofs-restore-hook/autofs-restore-hook/test/metrics"
)

// TestSoak restores one checkpoint again and again, each time under a new id, with
// the agent alone: SOAK times, or 3. The agent's memory, files and metrics stay
// right.
func TestSoak(t *testing.T) {
	lab.RequireNode(t)
	rounds := lab.IntFromEnvironment(t, "SOAK", 2, 3)
	p := startBase(t, "", false)
	p.checkpoint(t)
	groupsOnly(t, p)
	listen := startAgent(t)
	var early metrics.Samples
	began := time.Now()
	for i := range rounds {
		p.restore(t)
		lab.Eventually(t, 15*time.Second, "the restore is counted", func() bool {
			return metrics.Get(t, listen)["restores_total{by=agent,outcome=repaired}"] == float64(i+1)
		})
		if i == rounds-1 {
			p.CheckAnswers(t, accesses(false))
		}
		p.remove(t)
		if i == min(20, rounds/2) {
			early = metrics.Get(t, listen)
		}
	}
	m := metrics.Get(t, listen)
	m.Expect(t, map[string]float64{
		"mounts_total{master=systemd,outcome=unrepaired}": 0,
		"reaction_seconds":      float64(rounds),
		"missed_restores_total": 0,
		"failed_runs_total":     0,
		"ended_restores_total":  0,
		"repairs_queued":        0,
	})
	t.Logf("%d restores in %s; on average repaired %.3f s after the start",
		rounds, time.Since(began).Round(time.Second), m["reaction_seconds_sum"]/float64(rounds))
	m.CheckGrowth(t, early)
}
