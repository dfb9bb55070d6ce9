package agent

import (
	"bytes"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/autofs-restore-hook/autofs-restore-hook/manifests"
	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestPackageStays has the program of a package on the node, another version than
// that of the agent's image. It stays, during the agent's life and after it, and
// serves restores.
func TestPackageStays(t *testing.T) {
	d := startContainerd(t)
	lab.InstallActionScript(t, installedScript)
	program, err := os.ReadFile(lab.Hook())
	if err != nil {
		t.Fatal(err)
	}
	program = append(program, "another version"...)
	script, err := manifests.ActionScript(installedProgram)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = os.Remove(installedProgram), os.Remove(installedScript) })
	if err := os.MkdirAll(strings.TrimSuffix(installedProgram, "/autofs-restore-hook"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{installedProgram: program, installedScript: []byte(script.Data)} {
		if err := os.WriteFile(name, data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	same := func(when string) {
		t.Helper()
		now, err := os.ReadFile(installedProgram)
		if err != nil || !bytes.Equal(now, program) {
			t.Errorf("%s the package's program is another one (%v)", when, err)
		}
		if text, err := os.ReadFile(criuConfig); err != nil || !strings.Contains(string(text), installedScript) {
			t.Errorf("%s CRIU's configuration is %q, %v", when, text, err)
		}
	}
	p := newPod(t, d, func(s *corev1.PodSpec) {
		s.Containers[0].Args = append(s.Containers[0].Args, "-install-every=100ms", "-uninstall-on-exit")
	})
	p.start(t)
	p.ready(t)
	time.Sleep(500 * time.Millisecond) // a few looks
	same("while the agent runs")
	c := checkpointed(t, d)
	c.restore(t)
	if s := p.counted(t, 1); s.Sum("restores_total", "by=action-script,outcome=repaired") != 1 {
		t.Errorf("%v", s)
	}
	c.CheckAnswers(t, lab.Accesses)
	c.end(t)
	p.stop(t, syscall.SIGTERM)
	same("after the agent")
}
