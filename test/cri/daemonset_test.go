package cri

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// daemonSetSpec is the pod of the containerd overlay's DaemonSet.
func daemonSetSpec(t *testing.T) *corev1.PodSpec {
	t.Helper()
	dir := filepath.Join(lab.Checkout(), "manifests", "kubernetes", "overlays", "containerd")
	objects, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range objects.Resources() {
		if r.GetKind() != "DaemonSet" {
			continue
		}
		var d appsv1.DaemonSet
		text, err := r.AsYAML()
		if err == nil {
			err = yaml.UnmarshalStrict(text, &d)
		}
		if err != nil {
			t.Fatal(err)
		}
		return &d.Spec.Template.Spec
	}
	t.Fatal("the overlay has no DaemonSet")
	return nil
}

// agentPod has the agent repair as its DaemonSet runs it: what a kubelet asks the
// CRI for. It differs in the network, which is the host's, and posts no Events.
func agentPod(t *testing.T, p *pod) {
	t.Helper()
	groupsOnly(t, p)
	k := p.kubelet
	spec := daemonSetSpec(t)
	agent := spec.Containers[0]
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listen := free.Addr().String()
	free.Close()
	namespaces := &runtime.NamespaceOption{Network: runtime.NamespaceMode_NODE, Pid: runtime.NamespaceMode_CONTAINER}
	if spec.HostPID {
		namespaces.Pid = runtime.NamespaceMode_NODE
	}
	id, sandbox := k.sandbox(t, "agent", "/"+os.Getenv("LAB_ID")+"-agent", namespaces, false)
	config := &runtime.ContainerConfig{
		Metadata: &runtime.ContainerMetadata{Name: agent.Name},
		Image:    &runtime.ImageSpec{Image: k.pull(t, k.registry.addPrograms(t))},
		Args:     append(slices.Clone(agent.Args), "--install=false", "--events=false", "--log-level=debug", "--listen="+listen),
		LogPath:  "agent.log",
		Linux: &runtime.LinuxContainerConfig{
			Resources:       &runtime.LinuxContainerResources{MemoryLimitInBytes: agent.Resources.Limits.Memory().Value()},
			SecurityContext: securityContext(t, agent.SecurityContext, namespaces),
		},
	}
	for _, m := range agent.VolumeMounts {
		i := slices.IndexFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name })
		if err := os.MkdirAll(spec.Volumes[i].HostPath.Path, 0o755); err != nil {
			t.Fatal(err)
		}
		config.Mounts = append(config.Mounts, &runtime.Mount{ContainerPath: m.MountPath, HostPath: spec.Volumes[i].HostPath.Path, Readonly: m.ReadOnly})
	}
	r, err := k.CreateContainer(t.Context(), &runtime.CreateContainerRequest{PodSandboxId: id, Config: config, SandboxConfig: sandbox})
	if err == nil {
		_, err = k.StartContainer(t.Context(), &runtime.StartContainerRequest{ContainerId: r.GetContainerId()})
	}
	if err != nil {
		t.Fatalf("the agent's container: %v", err)
	}
	t.Cleanup(func() {
		text, _ := os.ReadFile(filepath.Join(sandbox.GetLogDirectory(), "agent.log"))
		t.Logf("the agent's log:\n%s", text)
	})
	waitReady(t, listen)
}

// securityContext is what the kubelet makes of a container's.
func securityContext(t *testing.T, s *corev1.SecurityContext, namespaces *runtime.NamespaceOption) *runtime.LinuxContainerSecurityContext {
	t.Helper()
	unconfined := &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_Unconfined}
	c := &runtime.LinuxContainerSecurityContext{
		Capabilities: &runtime.Capability{}, NamespaceOptions: namespaces, ReadonlyRootfs: *s.ReadOnlyRootFilesystem,
		RunAsUser: &runtime.Int64Value{Value: *s.RunAsUser}, RunAsGroup: &runtime.Int64Value{Value: *s.RunAsGroup},
		Seccomp: unconfined, Apparmor: unconfined, NoNewPrivs: !*s.AllowPrivilegeEscalation,
		MaskedPaths: []string{
			"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
			"/proc/sched_debug", "/proc/scsi", "/sys/firmware",
		},
		ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
	}
	for _, name := range s.Capabilities.Add {
		c.Capabilities.AddCapabilities = append(c.Capabilities.AddCapabilities, strings.TrimPrefix(string(name), "CAP_"))
	}
	for _, name := range s.Capabilities.Drop {
		c.Capabilities.DropCapabilities = append(c.Capabilities.DropCapabilities, string(name))
	}
	return c
}
