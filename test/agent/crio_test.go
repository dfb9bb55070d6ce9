package agent

import (
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/agent/engine"
	"github.com/autofs-restore-hook/autofs-restore-hook/agent/engine/criotest"
	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// crioPod runs the agent as on a node with CRI-O. Debian has none: a CRI server
// of ours answers as CRI-O does, and the containers are restored by containerd.
func crioPod(t *testing.T, d *daemon) *pod {
	t.Helper()
	if err := os.MkdirAll("/run/crio", 0o755); err != nil {
		t.Fatal(err)
	}
	p := newPod(t, d, nil)
	p.spec = daemonSet(t, "crio").Spec.Template.Spec
	p.agent().Args = append(p.agent().Args, "-listen="+p.listen, "-log-level=debug")
	withoutInstall(&p.spec)
	return p
}

// restoreAs restores the container as CRI-O does.
func (c *container) restoreAs(t *testing.T, s *criotest.Server) time.Time {
	t.Helper()
	s.Import(c.ID, labels)
	s.Conmon(t, c.ID)
	started := c.restore(t)
	s.Run(c.ID, c.PID)
	return started
}

// TestCRIO has the agent alone repair restores that it sees, and one that happened
// while it was away.
func TestCRIO(t *testing.T) {
	d := startContainerd(t)
	p := crioPod(t, d)
	s := criotest.Start(t, engine.CRIOSocket)
	p.start(t)
	p.ready(t)
	c := checkpointed(t, d)
	lab.InstallGroupsOnly(t, c.groups)

	t.Run("live", func(t *testing.T) {
		started := c.restoreAs(t, s)
		c.awaitReport(t, started)
		c.checkIdentical(t)
		c.CheckAnswers(t, lab.Accesses)
		m := p.counted(t, 1)
		if m.Sum("restores_total", "by=agent,outcome=repaired") != 1 || m.Sum("mounts_total", "outcome=reexecuted") != c.mounts.systemd ||
			m["missed_restores_total"] != 0 || m["engine_connected"] != 1 || m["reaction_seconds"] != 1 {
			t.Errorf("%v", m)
		}
		s.Remove(c.ID)
		c.end(t)
	})

	t.Run("missed", func(t *testing.T) {
		p.stop(t, syscall.SIGKILL)
		c.restoreAs(t, s)
		if _, stale := c.staleAccess(t); !stale {
			t.Fatal("nothing hangs after a restore without a repair: this test would show nothing")
		}
		p.start(t)
		p.ready(t)
		m := p.counted(t, 1)
		if m.Sum("restores_total", "by=agent,outcome=repaired") != 1 || m["missed_restores_total"] != 1 {
			t.Errorf("%v", m)
		}
		c.CheckAnswers(t, lab.Accesses)
		s.Remove(c.ID)
		c.end(t)
	})

	t.Run("CRI-O away", func(t *testing.T) {
		s.Stop()
		lab.Eventually(t, 10*time.Second, "the agent notices that CRI-O is gone", func() bool {
			status, body := p.get("/readyz")
			return status == http.StatusServiceUnavailable && strings.Contains(body, "[-] engine")
		})
		before := p.metrics(t)
		c.restoreAs(t, s)
		s.Listen(t)
		m := p.counted(t, before.Sum("restores_total", "")+1)
		if m["missed_restores_total"] != before["missed_restores_total"]+1 || m["engine_reconnects_total"] != 1 {
			t.Errorf("%v", m)
		}
		c.CheckAnswers(t, lab.Accesses)
	})
}

// TestCRIOActionScript has CRIU's action script repair: the agent counts.
func TestCRIOActionScript(t *testing.T) {
	d := startContainerd(t)
	p := crioPod(t, d)
	s := criotest.Start(t, engine.CRIOSocket)
	p.start(t)
	p.ready(t)
	c := checkpointed(t, d)
	lab.InstallActionScript(t, lab.Hook())
	c.restoreAs(t, s)
	m := p.counted(t, 1)
	if m.Sum("restores_total", "by=action-script,outcome=repaired") != 1 || m.Sum("mounts_total", "outcome=preserved") != c.mounts.systemd {
		t.Errorf("%v", m)
	}
	c.checkIdentical(t)
}
