package cri

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// pod is a pod with a systemd container.
type pod struct {
	*lab.Container
	kubelet    *kubelet
	sandbox    string
	config     *runtime.PodSandboxConfig
	privileged bool
	ownGroups  bool // a cgroup namespace

	archive string
	units   map[string]lab.Unit // before the checkpoint
	daemons int
	groups  []string // control groups, before the checkpoint
	highest uint32   // device number (minor) of an autofs mount before the checkpoint
}

// capabilities of the container that is not privileged, beyond the defaults.
var capabilities = []string{"SYS_ADMIN", "SYS_PTRACE", "NET_ADMIN", "DAC_READ_SEARCH", "SYS_NICE", "SYS_BOOT"}

// request describes the container.
func (p *pod) request(image string) *runtime.CreateContainerRequest {
	security := &runtime.LinuxContainerSecurityContext{
		Privileged:       p.privileged,
		NamespaceOptions: p.config.GetLinux().GetSecurityContext().GetNamespaceOptions(),
		Seccomp:          &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_Unconfined},
		Apparmor:         &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_Unconfined},
	}
	config := &runtime.ContainerConfig{
		Metadata:    &runtime.ContainerMetadata{Name: "legacy"},
		Image:       &runtime.ImageSpec{Image: image, UserSpecifiedImage: image},
		Labels:      p.config.GetLabels(),
		Annotations: map[string]string{"io.kubernetes.container.hash": "1"},
		LogPath:     "legacy.log",
		Linux:       &runtime.LinuxContainerConfig{SecurityContext: security},
	}
	if !p.privileged {
		security.Capabilities = &runtime.Capability{AddCapabilities: capabilities}
		config.Devices = []*runtime.Device{{ContainerPath: "/dev/autofs", HostPath: "/dev/autofs", Permissions: "rwm"}}
	}
	return &runtime.CreateContainerRequest{PodSandboxId: p.sandbox, Config: config, SandboxConfig: p.config}
}

// create creates and starts the container. It returns when the engine says that
// the container runs.
func (p *pod) create(t *testing.T, image string) error {
	t.Helper()
	r, err := p.kubelet.CreateContainer(t.Context(), p.request(image))
	if err != nil {
		return fmt.Errorf("create the container: %w", err)
	}
	p.ID = r.GetContainerId()
	if _, err = p.kubelet.StartContainer(t.Context(), &runtime.StartContainerRequest{ContainerId: p.ID}); err != nil {
		return fmt.Errorf("start the container: %w", err)
	}
	return nil
}

// pid is the container's first process.
func (p *pod) pid(t *testing.T) int {
	t.Helper()
	r, err := p.kubelet.ContainerStatus(t.Context(), &runtime.ContainerStatusRequest{ContainerId: p.ID, Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	var info struct {
		PID int `json:"pid"`
	}
	if err := json.Unmarshal([]byte(r.GetInfo()["info"]), &info); err != nil || info.PID == 0 {
		t.Fatalf("status of container %s: %v: %q", p.ID, err, r.GetInfo())
	}
	return info.PID
}

// startPod starts a pod with a systemd container that has automounts of every kind.
func startPod(t *testing.T, k *kubelet, c *lab.Container, image string, privileged bool) *pod {
	t.Helper()
	p := &pod{Container: c, kubelet: k, privileged: privileged}
	group := "/" + c.ID
	namespaces := &runtime.NamespaceOption{Network: runtime.NamespaceMode_NODE, Pid: runtime.NamespaceMode_CONTAINER}
	p.sandbox, p.config = k.sandbox(t, "legacy-0", group, namespaces, privileged)
	if err := p.create(t, image); err != nil {
		t.Fatal(err)
	}
	p.Started(t, p.pid(t), false)
	p.ownGroups = p.hasOwnGroups(t)
	p.Populate(t)
	return p
}

// startBase starts a pod whose container is of the base image, in a containerd of its own.
// setting is a line of the runtime handler's configuration, or empty.
func startBase(t *testing.T, setting string, privileged bool) *pod {
	t.Helper()
	c, _ := lab.Prepare(t, lab.Options{})
	r := serve(t)
	r.addRoot(t, filepath.Join(c.Bundle, "rootfs"))
	k := start(t, r, setting)
	return startPod(t, k, c, k.pull(t, r.host+"/base:1"), privileged)
}

// hasOwnGroups reports whether the container has a cgroup namespace.
func (p *pod) hasOwnGroups(t *testing.T) bool {
	t.Helper()
	its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/cgroup", p.PID))
	if err != nil {
		t.Fatal(err)
	}
	ours, err := os.Readlink("/proc/self/ns/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	return its != ours
}

// checkpoint checkpoints the container and removes it.
func (p *pod) checkpoint(t *testing.T) {
	t.Helper()
	// The container is restored on another root file system: CRIU writes down the
	// paths of watched files.
	lab.InstallActionScript(t, "", "force-irmap")
	p.units, p.daemons, p.groups = p.Settle(t), len(p.Daemons(t)), p.Cgroups(t)
	for _, m := range lab.Autofs(t, p.PID) {
		p.highest = max(p.highest, uint32(m.Minor))
	}
	p.archive = filepath.Join(p.kubelet.dir, "checkpoint.tar")
	if _, err := p.kubelet.CheckpointContainer(t.Context(), &runtime.CheckpointContainerRequest{ContainerId: p.ID, Location: p.archive}); err != nil {
		t.Fatalf("checkpoint: %v\n%s", err, p.criuLog())
	}
	p.remove(t)
	p.FreeNumbers()
}

// oldGroups is shell that creates the control groups of the checkpointed container
// for one that has no cgroup namespace: its systemd watches them under the name of
// the container that it was, and the program creates none outside of the restored
// container's own group.
func (p *pod) oldGroups() string {
	if p.ownGroups {
		return ""
	}
	return "mkdir -p " + strings.Join(p.groups, " ") + "\n"
}

// remove ends the container.
func (p *pod) remove(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := p.kubelet.StopContainer(ctx, &runtime.StopContainerRequest{ContainerId: p.ID}); err != nil {
		t.Errorf("stop the container: %v", err)
	}
	if _, err := p.kubelet.RemoveContainer(ctx, &runtime.RemoveContainerRequest{ContainerId: p.ID}); err != nil {
		t.Errorf("remove the container: %v", err)
	}
}

// restore restores the container under a new name. It returns when the engine
// said that it runs.
func (p *pod) restore(t *testing.T) time.Time {
	t.Helper()
	if err := p.create(t, p.archive); err != nil {
		t.Fatalf("restore: %v\n%s", err, p.criuLog())
	}
	started := time.Now()
	p.Started(t, p.pid(t), true)
	return started
}

// checkIdentical wants every unit and every daemon as at the checkpoint, but some units.
// It returns the number of the others. Nothing may have been accessed since: an access
// starts a mount unit.
func (p *pod) checkIdentical(t *testing.T, but ...string) (units int) {
	t.Helper()
	after := p.Settle(t)
	for _, unit := range but {
		delete(p.units, unit)
		delete(after, unit)
	}
	for _, change := range lab.UnitChanges(p.units, after) {
		t.Error(change)
	}
	if now := len(p.Daemons(t)); now != p.daemons {
		t.Errorf("%d automount daemons, before the checkpoint %d", now, p.daemons)
	}
	t.Logf("%d units are as before the checkpoint", len(after))
	return len(after)
}

// criuLog is CRIU's log of a dump or a failed restore, as far as it has errors and
// warnings.
func (p *pod) criuLog() string {
	var text strings.Builder
	files, _ := filepath.Glob(filepath.Join(p.kubelet.dir, "restore.log"))
	dumps, _ := filepath.Glob(filepath.Join(p.kubelet.dir, "root/io.containerd.*/*/*/dump.log"))
	for _, file := range append(files, dumps...) {
		log, _ := os.ReadFile(file)
		fmt.Fprintf(&text, "%s:\n", file)
		for line := range strings.Lines(string(log)) {
			if strings.Contains(line, "Error") || strings.Contains(line, "Warn") {
				text.WriteString(line)
			}
		}
		fmt.Fprintf(&text, "its end:\n%s\n", log[max(0, len(log)-1500):])
	}
	return text.String()
}
