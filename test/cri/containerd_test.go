package cri

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	agent "github.com/autofs-restore-hook/autofs-restore-hook/agent/engine"
)

// containerdConfig is containerd's configuration. A container that is not privileged
// has its control groups writable, as systemd needs. The virtual machine's root may
// lack CAP_SYS_RESOURCE, without which the pause container's oom_score_adj is refused.
// containerd before 2.2.7 and 2.3.4 ignores the switch that it does not know.
const containerdConfig = `version = 3
root = %q
state = "/run/containerd"
[grpc]
  address = %q
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "%s/pause:1"
[plugins.'io.containerd.cri.v1.runtime']
  disable_apparmor = true
  restrict_oom_score_adj = true
  enable_experimental_restore_via_create = true
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    cgroup_writable = true
    %s
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = %q
`

// startContainerd starts containerd. setting is a further line of the runtime
// handler's configuration.
func (k *kubelet) startContainerd(t *testing.T, setting string) {
	t.Helper()
	path := filepath.Join(k.dir, "config.toml")
	text := fmt.Sprintf(containerdConfig, filepath.Join(k.dir, "root"), agent.ContainerdSocket, k.registry.host, setting, k.wrap(t))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	k.start(t, agent.ContainerdSocket, "containerd", "--config", path)
}
