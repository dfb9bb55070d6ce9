package cri

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// start starts containerd. setting is a further line of the runtime handler's
// configuration.
func start(t *testing.T, r *registry, setting string) *kubelet {
	t.Helper()
	k := &kubelet{registry: r, dir: lab.Scratch(t, "containerd")}
	k.restart = func() { k.startContainerd(t, setting) }
	k.restart()
	t.Cleanup(func() { k.end() }) // before the sandboxes' own: they end first
	return k
}

// kubelet is a client of containerd's CRI, as the kubelet is one.
type kubelet struct {
	runtime.RuntimeServiceClient
	images   runtime.ImageServiceClient
	registry *registry
	dir      string
	end      func() // ends the engine; its containers stay
	restart  func()
}

// wrapper takes limits of processor time and memory out of a container's configuration:
// where the host has a hybrid hierarchy, version 2 has no controllers for them. It
// also keeps CRIU's log of a failed restore, which containerd deletes.
const wrapper = `#!/bin/sh
for word; do
	case $before in
	--bundle) jq '.linux.resources |= {devices}' "$word/config.json" >"$word/config.new" && mv "$word/config.new" "$word/config.json" ;;
	--work-path) work=$word ;;
	esac
	before=$word
done
[ -n "$work" ] || exec runc "$@"
runc "$@" || {
	cp "$work"/restore.log "${0%/*}"
	exit 1
}
`

// wrap writes the wrapper of runc, and returns its path.
func (k *kubelet) wrap(t *testing.T) string {
	t.Helper()
	path := filepath.Join(k.dir, "runc")
	if err := os.WriteFile(path, []byte(wrapper), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// start starts an engine process, and a client of its CRI. end ends both.
func (k *kubelet) start(t *testing.T, socket, program string, arguments ...string) {
	t.Helper()
	log, err := os.Create(filepath.Join(k.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	process := exec.Command(program, arguments...)
	process.Stdout, process.Stderr = log, log
	process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	connection, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	k.end = sync.OnceFunc(func() {
		connection.Close()
		_ = process.Process.Kill()
		_ = process.Wait() // says that it was killed
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("the end of %s's log:\n%s", program, text[max(0, len(text)-6000):])
		}
	})
	k.RuntimeServiceClient, k.images = runtime.NewRuntimeServiceClient(connection), runtime.NewImageServiceClient(connection)
	lab.Eventually(t, 20*time.Second, program+"'s CRI answers", func() bool {
		r, err := k.Status(t.Context(), &runtime.StatusRequest{})
		if err != nil {
			return false
		}
		for _, c := range r.GetStatus().GetConditions() {
			if c.GetType() == runtime.RuntimeReady {
				return c.GetStatus()
			}
		}
		return false
	})
}

// pull pulls an image, and returns its name.
func (k *kubelet) pull(t *testing.T, image string) string {
	t.Helper()
	if _, err := k.images.PullImage(t.Context(), &runtime.PullImageRequest{Image: &runtime.ImageSpec{Image: image}}); err != nil {
		t.Fatalf("pull %s: %v", image, err)
	}
	return image
}

// sandbox starts a pod sandbox on the host's network, whose containers have their
// control groups in a group. It ends with the test.
func (k *kubelet) sandbox(t *testing.T, name, group string, namespaces *runtime.NamespaceOption, privileged bool) (string, *runtime.PodSandboxConfig) {
	t.Helper()
	config := &runtime.PodSandboxConfig{
		Metadata:     &runtime.PodSandboxMetadata{Name: name, Uid: "uid-" + name, Namespace: "default"},
		LogDirectory: filepath.Join(k.dir, "logs", name),
		Labels:       labels(name),
		Linux: &runtime.LinuxPodSandboxConfig{
			CgroupParent:    group,
			SecurityContext: &runtime.LinuxSandboxSecurityContext{Privileged: privileged, NamespaceOptions: namespaces},
		},
	}
	if err := os.MkdirAll(config.LogDirectory, 0o755); err != nil {
		t.Fatal(err)
	}
	r, err := k.RunPodSandbox(t.Context(), &runtime.RunPodSandboxRequest{Config: config})
	if err != nil {
		t.Fatalf("sandbox %s: %v", name, err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := os.ReadFile(filepath.Join(config.LogDirectory, "legacy.log"))
			t.Logf("the container's log:\n%s", text)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if _, err := k.RemovePodSandbox(ctx, &runtime.RemovePodSandboxRequest{PodSandboxId: r.GetPodSandboxId()}); err != nil {
			t.Errorf("remove sandbox %s: %v", name, err)
		}
	})
	return r.GetPodSandboxId(), config
}

// labels are those that the kubelet gives to a pod and its container.
func labels(pod string) map[string]string {
	return map[string]string{
		"io.kubernetes.pod.namespace": "default", "io.kubernetes.pod.name": pod, "io.kubernetes.pod.uid": "uid-" + pod,
		"io.kubernetes.container.name": "legacy",
	}
}
