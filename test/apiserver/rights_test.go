package apiserver

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/autofs-restore-hook/autofs-restore-hook/agent/engine"
	"github.com/autofs-restore-hook/autofs-restore-hook/agent/kube"
)

// as is what makes kubectl a service account of the agent's namespace.
func as(account string) string { return "--as=system:serviceaccount:autofs-restore:" + account }

// may lists what a service account may do in a namespace.
func may(t *testing.T, account, namespace string) []string {
	t.Helper()
	return strings.Split(kubectl(t, as(account), "-n", namespace, "auth", "can-i", "--list"), "\n")
}

// TestRights: the agent's account may create Events in each namespace, and for the
// rest what every account may.
func TestRights(t *testing.T) {
	dir := kustomization(t, "containerd", nil)
	apply(t, dir)
	for _, namespace := range []string{"autofs-restore", "default", "kube-system"} {
		everyone := may(t, "default", namespace)
		more := slices.DeleteFunc(may(t, "autofs-restore-agent", namespace), func(line string) bool { return slices.Contains(everyone, line) })
		if len(more) != 1 || !slices.Equal(strings.Fields(more[0]), []string{"events", "[]", "[]", "[create]"}) {
			t.Errorf("in %s the agent may %q", namespace, more)
		}
	}
	if said := refused(t, as("autofs-restore-agent"), "get", "events", "--all-namespaces"); !strings.Contains(said, "(Forbidden)") {
		t.Error(said)
	}
	remove(t, dir)
}

// client is the agent's own, with what the kubelet mounts.
func client(t *testing.T, account string) *kube.Client {
	t.Helper()
	dir := t.TempDir()
	certificate, err := os.ReadFile(running.path("apiserver.crt"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"ca.crt": string(certificate), "token": kubectl(t, "-n", "autofs-restore", "create", "token", account)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := map[string]string{"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": running.port}
	c, err := kube.InCluster(func(name string) string { return env[name] }, dir, node, "v1")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestEvents posts Events with the agent's own client and a token of its account.
func TestEvents(t *testing.T) {
	dir := kustomization(t, "containerd", nil)
	apply(t, dir)
	of := agentPod(t)
	pod := engine.Pod{Namespace: of.Namespace, Name: of.Name, UID: string(of.UID), Container: "agent"}
	c, at := client(t, "autofs-restore-agent"), time.Now()
	message := "after the restore: " + strings.Repeat("ü", 600)
	for _, a := range []time.Time{at, at, at.Add(time.Nanosecond)} { // the second is another attempt
		if err := c.Warning(t.Context(), pod, "AutomountsUnrepaired", message, a); err != nil {
			t.Error(err)
		}
	}
	events := get[corev1.EventList](t, "-n", pod.Namespace, "events", "--field-selector=reason=AutomountsUnrepaired").Items
	if len(events) != 2 {
		t.Fatalf("%d Events, want 2: the same one again is the same", len(events))
	}
	for _, e := range events {
		if o := e.InvolvedObject; o.UID != of.UID || o.Name != of.Name || o.FieldPath != "spec.containers{agent}" || e.Source.Host != node ||
			e.Type != corev1.EventTypeWarning || len(e.Message) > 1024 || !strings.HasPrefix(e.Message, "after the restore: üü") {
			t.Errorf("%+v", e)
		}
	}
	if shown := kubectl(t, "-n", pod.Namespace, "events", "--for=pod/"+of.Name, "--types=Warning"); strings.Count(shown, "AutomountsUnrepaired") != 2 {
		t.Errorf("kubectl shows\n%s", shown)
	}
	for account, refuses := range map[string]string{"default": "403", "autofs-restore-agent": "404"} {
		pod := pod
		if refuses == "404" {
			pod.Namespace = "gone"
		}
		if err := client(t, account).Warning(t.Context(), pod, "AutomountsUnrepaired", message, at.Add(time.Second)); err == nil || !strings.Contains(err.Error(), refuses) {
			t.Errorf("as %s in %s: %v", account, pod.Namespace, err)
		}
	}
	for _, name := range []string{strings.Repeat("a", 253), strings.Repeat("a", 235) + "-" + strings.Repeat("b", 17)} { // the longest
		pod.Name = name
		if err := c.Warning(t.Context(), pod, "AutomountsUnrepaired", message, at); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	remove(t, dir)
}
