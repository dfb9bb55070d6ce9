package agent

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/autofs-restore-hook/autofs-restore-hook/install"
	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestRemoval removes the agent as the documents say: the DaemonSet gets the
// argument --uninstall-on-exit, its pods are replaced, and then it is deleted.
func TestRemoval(t *testing.T) {
	d := startContainerd(t)
	lab.InstallActionScript(t, "/bin/true") // and its folder
	other := "# another tool's\nlog-file other.log\n"
	if err := os.WriteFile(criuConfig, []byte(other), 0o644); err != nil {
		t.Fatal(err)
	}
	first := newPod(t, d, func(s *corev1.PodSpec) {
		s.Containers[0].Args = append(s.Containers[0].Args, "--force-irmap")
	})
	first.start(t)
	first.ready(t)
	first.stop(t, syscall.SIGTERM) // by the rollout
	if text, err := os.ReadFile(criuConfig); err != nil || !strings.Contains(string(text), install.ForceIrmap) {
		t.Errorf("CRIU's configuration is %q, %v, want it to have %s", text, err, install.ForceIrmap)
	}
	for _, name := range []string{installedProgram, installedScript} {
		if _, err := os.Stat(name); err != nil {
			t.Errorf("a rollout removes what is installed: %v", err)
		}
	}
	second := newPod(t, d, func(s *corev1.PodSpec) {
		s.Containers[0].Args = append(s.Containers[0].Args, "--force-irmap", "--uninstall-on-exit")
	})
	second.start(t)
	second.ready(t)
	second.stop(t, syscall.SIGTERM) // by the removal
	for _, name := range []string{installedProgram, installedScript, install.RecordFile} {
		if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", name, err)
		}
	}
	if text, err := os.ReadFile(criuConfig); err != nil || string(text) != other {
		t.Errorf("CRIU's configuration is %q, %v, want it as it was", text, err)
	}
}
