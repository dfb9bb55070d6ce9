package cri

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/install"
	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
	"github.com/autofs-restore-hook/autofs-restore-hook/test/metrics"
)

// hookSpec has the program as a hook of every container, as it installs itself.
func hookSpec(t *testing.T) string {
	t.Helper()
	if r := lab.RunHook(t, nil, nil, "install", "--engine", "containerd"); r.Status != 0 {
		t.Fatalf("install: exit status %d: %s", r.Status, r.Stderr)
	}
	t.Cleanup(func() {
		if r := lab.RunHook(t, nil, nil, "uninstall", "--engine", "containerd"); r.Status != 0 {
			t.Errorf("uninstall: exit status %d: %s", r.Status, r.Stderr)
		}
	})
	return baseSpec(install.BaseSpec)
}

// cgroupSpec gives every container a cgroup namespace, which containerd gives to
// those only that are not privileged. The command is that of the example.
func cgroupSpec(t *testing.T) string {
	t.Helper()
	example, err := os.ReadFile(filepath.Join(lab.Checkout(), "manifests", "kubernetes", "example", "containerd-handler.toml"))
	if err != nil {
		t.Fatal(err)
	}
	const to = "/etc/containerd/systemd.json"
	command := regexp.MustCompile(`(?m)^# +(ctr oci spec .*) >` + to + `$`).FindSubmatch(example)
	if command == nil {
		t.Fatal("the example names no command that makes the base spec")
	}
	path := filepath.Join(lab.Scratch(t, "spec"), "spec.json")
	if out, err := exec.Command("sh", "-ec", string(command[1])+" >"+path).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", command[1], err, out)
	}
	return baseSpec(path)
}

func baseSpec(path string) string { return fmt.Sprintf("base_runtime_spec = %q", path) }

// TestHookFirst has the hook's watcher and an agent: the agent leaves the repair to
// the watcher, and counts it.
func TestHookFirst(t *testing.T) {
	lab.RequireNode(t)
	p := startBase(t, hookSpec(t), false)
	p.checkpoint(t)
	listen := startAgent(t)
	for i := range 5 {
		p.restore(t)
		lab.Eventually(t, 15*time.Second, "the restore is counted", func() bool {
			m := metrics.Get(t, listen)
			if n := m["restores_total{by=agent,outcome=repaired}"] + m["restores_total{by=agent,outcome=nothing-to-do}"]; n > 0 {
				t.Fatalf("restore %d: the agent has repaired, too", i+1)
			}
			return m["restores_total{by=oci-hook,outcome=repaired}"] == float64(i+1)
		})
		p.remove(t)
	}
}
