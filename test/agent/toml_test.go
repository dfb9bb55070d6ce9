package agent

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/pelletier/go-toml/v2"

	"github.com/autofs-restore-hook/autofs-restore-hook/install"
	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestFragments reads the settings of the engines' configuration files. The
// types are ours, as the engines' documentation names the settings: those of
// containerd and CRI-O cannot be imported.
func TestFragments(t *testing.T) {
	type containerd struct {
		Version int `toml:"version"`
		Plugins struct {
			CRI struct {
				Restore    bool `toml:"enable_experimental_restore_via_create"`
				Containerd struct {
					Runtimes map[string]struct {
						Type     string `toml:"runtime_type"`
						BaseSpec string `toml:"base_runtime_spec"`
					} `toml:"runtimes"`
				} `toml:"containerd"`
			} `toml:"io.containerd.cri.v1.runtime"`
		} `toml:"plugins"`
	}
	var restore, handler, systemd containerd
	fragment(t, "containerd/restore.toml", &restore)
	fragment(t, "containerd/runtime-handler.toml", &handler)
	fragment(t, "kubernetes/example/containerd-handler.toml", &systemd)
	if r := systemd.Plugins.CRI.Containerd.Runtimes["systemd"]; systemd.Version != 3 || r.Type != runtimeName || r.BaseSpec == "" {
		t.Errorf("containerd-handler.toml: %+v", systemd)
	}
	if restore.Version != 3 || !restore.Plugins.CRI.Restore {
		t.Errorf("restore.toml: %+v", restore)
	}
	if r := handler.Plugins.CRI.Containerd.Runtimes["autofs"]; handler.Version != 3 || r.Type != runtimeName ||
		r.BaseSpec != install.BaseSpec {
		t.Errorf("runtime-handler.toml: %+v", handler)
	}
	var crio struct {
		CRIO struct {
			Runtime struct {
				Enabled bool `toml:"enable_criu_support"`
			} `toml:"runtime"`
			Restore struct {
				Level string `toml:"container_level_enabled"`
			} `toml:"checkpoint_restore"`
		} `toml:"crio"`
	}
	fragment(t, "crio/10-checkpoint-restore.conf", &crio)
	if !crio.CRIO.Runtime.Enabled || crio.CRIO.Restore.Level != "checkpoint_restore" {
		t.Errorf("10-checkpoint-restore.conf: %+v", crio)
	}
}

func fragment(t *testing.T, name string, into any) {
	t.Helper()
	file, err := os.Open(filepath.Join(lab.Checkout(), "manifests", name))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := toml.NewDecoder(file).DisallowUnknownFields().Decode(into); err != nil {
		t.Errorf("%s: %v", name, err)
	}
}
