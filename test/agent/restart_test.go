package agent

import (
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestRestarts ends containerd and the agent between, and during, restores:
// nothing is missed and nothing is done twice.
func TestRestarts(t *testing.T) {
	d := startContainerd(t)
	p := newPod(t, d, withoutInstall)
	p.start(t)
	p.ready(t)
	c := checkpointed(t, d)
	lab.InstallGroupsOnly(t, c.groups)

	t.Run("containerd", func(t *testing.T) { restartContainerd(t, d, p, c) })
	t.Run("agent away", func(t *testing.T) { restartAgent(t, p, c) })
	t.Run("agent away, action script", func(t *testing.T) { restartAgentActionScript(t, p, c) })
	t.Run("agent killed at work", func(t *testing.T) { killAgentAtWork(t, p, c) })
}

// restartContainerd ends containerd between restores.
func restartContainerd(t *testing.T, d *daemon, p *pod, c *container) {
	t.Helper()
	d.kill(t)
	lab.Eventually(t, 5*time.Second, "the agent notices that containerd is gone", func() bool {
		status, body := p.get("/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "[-] engine")
	})
	if status, body := p.get("/healthz"); status != http.StatusOK {
		t.Errorf("a containerd that is gone makes the agent unhealthy: %d %s", status, body)
	}
	d.start(t)
	took := lab.Eventually(t, 10*time.Second, "the agent is ready again", func() bool {
		status, _ := p.get("/readyz")
		return status == http.StatusOK
	})
	t.Logf("ready again %s after containerd", took.Round(time.Millisecond))
	started := c.restore(t)
	c.awaitReport(t, started)
	s := p.counted(t, 1)
	if s["engine_reconnects_total"] != 1 || s["engine_connected"] != 1 || s["missed_restores_total"] != 0 {
		t.Errorf("%v", s)
	}
	d.kill(t) // with a restored container at work
	d.start(t)
	p.ready(t)
	time.Sleep(500 * time.Millisecond)
	p.counted(t, 1)
	c.CheckAnswers(t, lab.Accesses)
	c.end(t)
}

// restartAgent has a restore while no agent runs.
func restartAgent(t *testing.T, p *pod, c *container) {
	t.Helper()
	p.stop(t, syscall.SIGKILL)
	c.restore(t)
	if _, stale := c.staleAccess(t); !stale {
		t.Fatal("nothing hangs after a restore without a repair: this test would show nothing")
	}
	p.start(t)
	p.ready(t)
	s := p.counted(t, 1)
	if s["missed_restores_total"] != 1 || s.Sum("restores_total", "by=agent,outcome=repaired") != 1 {
		t.Errorf("%v", s)
	}
	c.CheckAnswers(t, lab.Accesses)
	p.stop(t, syscall.SIGTERM)
	p.start(t) // another one knows that all is done
	p.ready(t)
	time.Sleep(500 * time.Millisecond)
	p.counted(t, 0)
	c.end(t)
}

// restartAgentActionScript is the same with a repair by the action script.
func restartAgentActionScript(t *testing.T, p *pod, c *container) {
	t.Helper()
	lab.InstallActionScript(t, lab.Hook())
	p.stop(t, syscall.SIGKILL)
	c.restore(t)
	p.start(t)
	p.ready(t)
	s := p.counted(t, 1)
	if s["missed_restores_total"] != 0 || s.Sum("restores_total", "by=action-script,outcome=repaired") != 1 {
		t.Errorf("%v", s)
	}
	c.end(t)
}

// killAgentAtWork kills the agent during a repair.
func killAgentAtWork(t *testing.T, p *pod, c *container) {
	t.Helper()
	lab.InstallGroupsOnly(t, c.groups)
	c.restore(t)
	time.Sleep(150 * time.Millisecond) // the repair has started, and takes 100 ms
	p.stop(t, syscall.SIGKILL)
	p.start(t)
	p.ready(t)
	c.waitRepaired(t)
	c.CheckAnswers(t, lab.Accesses)
	if s := p.metrics(t); s.Sum("restores_total", "") > 1 || s["failed_runs_total"] != 0 {
		t.Errorf("%v", s)
	}
	c.end(t)
}

// staleAccess touches an automount; true if that hangs.
func (c *container) staleAccess(t *testing.T) (lab.Touch, bool) {
	t.Helper()
	touch := c.Touch(t, lab.Idle+"/"+lab.Marker, 300*time.Millisecond)
	return touch, touch.Hung
}

// waitRepaired waits until a report says so.
func (c *container) waitRepaired(t *testing.T) {
	t.Helper()
	lab.Eventually(t, 10*time.Second, "the container is repaired", func() bool {
		if !c.HasReport() {
			return false
		}
		r := c.ReadReport(t)
		return r.PID == c.PID && r.Outcome == "repaired"
	})
}
