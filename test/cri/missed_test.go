package cri

import (
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
	"github.com/autofs-restore-hook/autofs-restore-hook/test/metrics"
)

// TestMissed has an agent find a restore that it did not see: it was away, and
// containerd was restarted meanwhile.
func TestMissed(t *testing.T) {
	lab.RequireNode(t)
	cell := addCell(t, "", byAgent+", which was away")
	p := startBase(t, "", false)
	p.checkpoint(t)
	groupsOnly(t, p)
	p.restore(t)
	p.kubelet.end()
	p.kubelet.restart()
	listen := startAgent(t)
	lab.Eventually(t, 15*time.Second, "the restore is counted", func() bool {
		return metrics.Get(t, listen)["restores_total{by=agent,outcome=repaired}"] == 1
	})
	if n := metrics.Get(t, listen)["missed_restores_total"]; n != 1 {
		t.Errorf("%v missed restores, want 1", n)
	}
	s := scene{cure: "reexecuted"}
	cell.Text = s.served(s.check(t, p))
}
