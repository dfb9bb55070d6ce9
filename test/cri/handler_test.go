package cri

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/autofs-restore-hook/autofs-restore-hook/install"
	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
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
// those only that are not privileged.
func cgroupSpec(t *testing.T) string {
	t.Helper()
	text, err := exec.Command("ctr", "oci", "spec").Output()
	if err != nil {
		t.Fatalf("ctr oci spec: %v", err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(text, &spec); err != nil {
		t.Fatal(err)
	}
	spec.Process.Rlimits = nil // containers of Kubernetes have none
	spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	if text, err = json.Marshal(spec); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(lab.Scratch(t, "spec"), "spec.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return baseSpec(path)
}

func baseSpec(path string) string { return fmt.Sprintf("base_runtime_spec = %q", path) }
