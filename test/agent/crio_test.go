package agent

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestReportsOnly runs the agent as on a node with CRI-O: it hears of restores
// by the reports of the hook alone. There is no CRI-O in the laboratory, so
// nobody answers at its socket, and the agent must say that.
func TestReportsOnly(t *testing.T) {
	d := startContainerd(t)
	if err := os.MkdirAll("/run/crio", 0o755); err != nil {
		t.Fatal(err)
	}
	p := newPod(t, d, nil)
	p.spec = daemonSet(t, "crio").Spec.Template.Spec
	p.agent().Args = append(p.agent().Args, "-listen="+p.listen)
	withoutInstall(&p.spec)
	p.start(t)
	var body string
	eventually(t, 10*time.Second, "the agent answers", func() bool {
		var status int
		status, body = p.get("/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "[+] reports") && strings.Contains(body, "CRI")
	})
	t.Log(body)
	c := checkpointed(t, d)
	lab.InstallActionScript(t, lab.Hook())
	c.restore(t)
	s := p.counted(t, 1)
	if s.sum("restores_total", "by=action-script,outcome=repaired") != 1 || s.sum("mounts_total", "outcome=preserved") != c.mounts.systemd || s["engine_connected"] != 0 {
		t.Errorf("%v", s)
	}
}
