package agent

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// pod is the agent as the DaemonSet of an overlay describes it.
type pod struct {
	spec   corev1.PodSpec
	listen string
	log    string
	image  client.Image
	daemon *daemon
	// command is run instead of the image's entry point, without the DaemonSet's
	// arguments.
	command []string

	containerd client.Container
	task       client.Task
}

// newPod reads the DaemonSet of the containerd overlay and imports the image.
// change may change the description.
func newPod(t *testing.T, d *daemon, change func(*corev1.PodSpec)) *pod {
	t.Helper()
	p := &pod{spec: daemonSet(t, "containerd").Spec.Template.Spec, daemon: d}
	// Of its own: a search for a line must not find that of an earlier test's agent.
	p.log = filepath.Join(lab.Scratch(t, "agent"), fmt.Sprintf("log-%d", time.Now().UnixNano()))
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.listen = free.Addr().String()
	free.Close()
	p.agent().Args = append(p.agent().Args, "-listen="+p.listen, "-log-level=debug")
	if change != nil {
		change(&p.spec)
	}
	file, err := os.Open(archive(t))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	images, err := d.client.Import(kubelet, file)
	if err != nil || len(images) != 1 {
		t.Fatalf("import the image: %d, %v", len(images), err)
	}
	p.image = client.NewImage(d.client, images[0])
	if err := p.image.Unpack(kubelet, "overlayfs"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.stop(t, syscall.SIGKILL)
		if t.Failed() {
			text, _ := os.ReadFile(p.log)
			t.Logf("the agent's log:\n%s", text)
		}
	})
	return p
}

func (p *pod) agent() *corev1.Container { return &p.spec.Containers[0] }

// start starts the agent, with a new container as the kubelet does.
func (p *pod) start(t *testing.T) {
	t.Helper()
	id := fmt.Sprintf("%s-agent-%d", os.Getenv("LAB_ID"), time.Now().UnixNano())
	config, err := p.image.Spec(kubelet)
	if err != nil {
		t.Fatal(err)
	}
	spec := p.ociSpec(t, id, config.Config.Entrypoint)
	p.containerd, err = p.daemon.client.NewContainer(kubelet, id, client.WithNewSnapshot(id, p.image), client.WithSpec(spec),
		client.WithRuntime(runtimeName, &options.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	if p.task, err = p.containerd.NewTask(kubelet, cio.LogFile(p.log)); err != nil {
		t.Fatal(err)
	}
	if err := p.task.Start(kubelet); err != nil {
		t.Fatal(err)
	}
}

// stop ends the agent with a signal, and removes its container. It does nothing
// if there is none.
func (p *pod) stop(t *testing.T, signal syscall.Signal) {
	t.Helper()
	if p.task == nil {
		return
	}
	exited, err := p.task.Wait(kubelet)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.task.Kill(kubelet, signal); err != nil && !errdefs.IsNotFound(err) { // ended by itself
		t.Errorf("the agent: %v", err)
	}
	select {
	case <-exited:
	case <-time.After(20 * time.Second):
		t.Fatalf("the agent did not end within 20 s of signal %d", signal)
	}
	if _, err := p.task.Delete(kubelet); err != nil {
		t.Error(err)
	}
	if err := p.containerd.Delete(kubelet, client.WithSnapshotCleanup); err != nil {
		t.Error(err)
	}
	p.task = nil
}

// ociSpec is what containerd's CRI plugin makes of the agent's container.
func (p *pod) ociSpec(t *testing.T, id string, entrypoint []string) *specs.Spec {
	t.Helper()
	a := p.agent()
	caps := capabilitiesOf(t, a.SecurityContext)
	spec := &specs.Spec{
		Version: "1.0.2",
		Root:    &specs.Root{Path: "rootfs", Readonly: *a.SecurityContext.ReadOnlyRootFilesystem},
		Process: &specs.Process{
			Args: append(slices.Clone(entrypoint), a.Args...), Cwd: "/",
			Env:          []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			User:         specs.User{UID: uint32(*a.SecurityContext.RunAsUser), GID: uint32(*a.SecurityContext.RunAsGroup)},
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: "/" + id,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.MountNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.CgroupNamespace},
			},
			// No device but those that runc always allows.
			Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
			MaskedPaths: []string{
				"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
				"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
			},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
	if p.command != nil {
		spec.Process.Args = p.command
	}
	if !p.spec.HostPID {
		spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.PIDNamespace})
	}
	for _, e := range a.Env {
		if e.ValueFrom != nil && e.ValueFrom.FieldRef != nil && e.ValueFrom.FieldRef.FieldPath == "spec.nodeName" {
			e.Value = "node-1"
		}
		spec.Process.Env = append(spec.Process.Env, e.Name+"="+e.Value)
	}
	for _, m := range a.VolumeMounts {
		spec.Mounts = append(spec.Mounts, p.mount(t, m))
	}
	return spec
}

func (p *pod) mount(t *testing.T, m corev1.VolumeMount) specs.Mount {
	t.Helper()
	i := slices.IndexFunc(p.spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name })
	if i < 0 || p.spec.Volumes[i].HostPath == nil {
		t.Fatalf("volume %q: not a hostPath", m.Name)
	}
	source := p.spec.Volumes[i].HostPath
	switch info, err := os.Stat(source.Path); {
	case *source.Type == corev1.HostPathDirectoryOrCreate && os.IsNotExist(err):
		if err := os.MkdirAll(source.Path, 0o755); err != nil {
			t.Fatal(err)
		}
	case err == nil && *source.Type == corev1.HostPathCharDev && info.Mode()&os.ModeCharDevice != 0:
	case err != nil || !info.IsDir():
		t.Fatalf("hostPath %s of type %s: %v", source.Path, *source.Type, err)
	}
	mount := specs.Mount{Destination: m.MountPath, Type: "bind", Source: source.Path, Options: []string{"rbind", "rprivate", "rw"}}
	if m.ReadOnly {
		mount.Options[2] = "ro"
	}
	return mount
}

// capabilitiesOf are those that are added to none.
func capabilitiesOf(t *testing.T, s *corev1.SecurityContext) []string {
	t.Helper()
	if len(s.Capabilities.Drop) != 1 || s.Capabilities.Drop[0] != "ALL" || s.Privileged != nil && *s.Privileged {
		t.Fatalf("want all capabilities dropped but the named ones, and no privileged container: %+v", s)
	}
	var caps []string
	for _, c := range s.Capabilities.Add {
		caps = append(caps, "CAP_"+strings.TrimPrefix(string(c), "CAP_"))
	}
	return caps
}
