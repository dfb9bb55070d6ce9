package cri

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestKubernetes is the way of a cluster's operator: the agent is applied to a cluster
// with a kubelet, a pod with automounts is checkpointed through the kubelet's API and
// restored as another pod, and the agent is removed. `make test-kubernetes` runs it.
func TestKubernetes(t *testing.T) {
	programs := os.Getenv("KUBERNETES")
	if programs == "" {
		t.Skip("KUBERNETES names no folder with the programs of Kubernetes: make test-kubernetes")
	}
	lab.RequireNode(t)
	prepareNetwork(t)
	c, _ := lab.Prepare(t, lab.Options{})
	r := serve(t)
	r.addRoot(t, filepath.Join(c.Bundle, "rootfs"))
	if err := os.WriteFile(filepath.Join(os.Getenv("LAB_SCRATCH"), "cgroups"), []byte("k8s.io\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	start(t, r, cgroupSpec(t)+networkConfig)
	k := startCluster(t, programs)
	deployment := k.deploy(t, r.addPrograms(t))

	p := &pod{Container: c}
	k.apply(t, example(t, "legacy.yaml", "registry.example.com/legacy:1", r.host+"/base:1"))
	k.kubectl(t, "wait", "--for=condition=Ready", "pod/legacy", "--timeout=60s")
	p.Started(t, k.container(t, p, "legacy"), false)
	p.Populate(t)
	p.units, p.daemons = p.Settle(t), len(p.Daemons(t))
	image := r.addArchive(t, k.checkpoint(t, "legacy"))
	k.kubectl(t, "delete", "pod", "legacy", "--grace-period=1")
	p.FreeNumbers()

	k.apply(t, example(t, "legacy-restored.yaml", "localhost/legacy-checkpoint:latest", image))
	k.kubectl(t, "wait", "--for=condition=Ready", "pod/legacy-restored", "--timeout=60s")
	p.Started(t, k.container(t, p, "legacy-restored"), true)
	lab.Eventually(t, 10*time.Second, "a report", p.HasReport)
	for _, m := range p.ReadReport(t).Mounts {
		if m.Master.Kind == "systemd" && m.Outcome != "preserved" {
			t.Errorf("%s is %s (%s)", m.Path, m.Outcome, m.Reason)
		}
	}
	p.checkIdentical(t)
	p.CheckAnswers(t, lab.Accesses)
	k.checkAgent(t)
	k.remove(t, deployment)
}

// deploy applies the agent's manifests with an image, as the README tells, and waits
// until it is ready. It returns the folder of the kustomization.
func (c *cluster) deploy(t *testing.T, image string) string {
	t.Helper()
	dir := c.path("deployment")
	overlay, err := filepath.Rel(dir, filepath.Join(lab.Checkout(), "manifests/kubernetes/overlays/containerd"))
	if err != nil {
		t.Fatal(err)
	}
	name, tag := image[:strings.LastIndex(image, ":")], image[strings.LastIndex(image, ":")+1:]
	text := fmt.Sprintf(`resources: [%s]
images:
  - {name: registry.invalid/autofs-restore-agent, newName: %q, newTag: %q}
patches:
  - target: {kind: DaemonSet}
    patch: '[{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--force-irmap"}]'
`, overlay, name, tag)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	c.kubectl(t, "apply", "-k", dir)
	c.kubectl(t, "-n", "autofs-restore", "rollout", "status", "daemonset", "autofs-restore-agent", "--timeout=60s")
	return dir
}

// example is a manifest of manifests/kubernetes/example with another image, for the
// node.
func example(t *testing.T, name, image, by string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(lab.Checkout(), "manifests/kubernetes/example", name))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), image) {
		t.Fatalf("%s has no image %s", name, image)
	}
	return strings.NewReplacer(image, by, "nodeName: NODE", "nodeName: "+nodeName).Replace(string(text))
}

func (c *cluster) apply(t *testing.T, manifest string) {
	t.Helper()
	path := c.path("manifest.yaml")
	if err := os.WriteFile(path, []byte(manifest), 0o644); err != nil {
		t.Fatal(err)
	}
	c.kubectl(t, "apply", "-f", path)
}

// container sets the id of the pod's container. It returns its first process.
func (c *cluster) container(t *testing.T, p *pod, name string) int {
	t.Helper()
	id := c.kubectl(t, "get", "pod", name, "--output=jsonpath={.status.containerStatuses[0].containerID}")
	p.ID = strings.TrimPrefix(id, "containerd://")
	out, err := exec.Command("ctr", "--namespace", "k8s.io", "task", "list").Output()
	if err != nil {
		t.Fatalf("ctr task list: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		var task string
		var pid int
		if _, err := fmt.Sscan(line, &task, &pid); err == nil && task == p.ID {
			return pid
		}
	}
	t.Fatalf("no task of container %q:\n%s", id, out)
	return 0
}

// checkpoint checkpoints the container of a pod through the kubelet's API. It returns
// the archive.
func (c *cluster) checkpoint(t *testing.T, pod string) string {
	t.Helper()
	answer := c.kubectl(t, "create", "--raw", "/api/v1/nodes/"+nodeName+"/proxy/checkpoint/default/"+pod+"/legacy", "-f", "/dev/null")
	var archives struct {
		Items []string `json:"items"`
	}
	if err := json.Unmarshal([]byte(answer), &archives); err != nil || len(archives.Items) != 1 {
		t.Fatalf("checkpoint: %v: %s", err, answer)
	}
	return archives.Items[0]
}

// checkAgent wants the restore in the agent's log and metrics.
func (c *cluster) checkAgent(t *testing.T) {
	t.Helper()
	agent := strings.TrimSpace(c.kubectl(t, "-n", "autofs-restore", "get", "pods", "--output=jsonpath={.items[0].metadata.name}"))
	lab.Eventually(t, 10*time.Second, "the agent counts the restore", func() bool {
		out, _ := c.command("get", "--raw", "/api/v1/namespaces/autofs-restore/pods/"+agent+":9808/proxy/metrics").Output()
		return strings.Contains(string(out), `autofs_restore_restores_total{by="action-script",outcome="repaired"} 1`)
	})
	if log := c.kubectl(t, "-n", "autofs-restore", "logs", agent); !strings.Contains(log, `"msg":"restored"`) {
		t.Error("no line of the restore in the agent's log")
	}
}

// remove removes the agent as the README tells. Nothing stays on the node.
func (c *cluster) remove(t *testing.T, deployment string) {
	t.Helper()
	c.kubectl(t, "-n", "autofs-restore", "patch", "daemonset", "autofs-restore-agent", "--type=json",
		`-p=[{"op":"add","path":"/spec/template/spec/containers/0/args/-","value":"--uninstall-on-exit"}]`)
	c.kubectl(t, "-n", "autofs-restore", "rollout", "status", "daemonset", "autofs-restore-agent", "--timeout=60s")
	c.kubectl(t, "delete", "-k", deployment)
	for _, path := range []string{"/usr/libexec/oci/hooks.d/autofs-restore-hook", "/etc/criu/default.conf"} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is still on the node", path)
		}
	}
}
