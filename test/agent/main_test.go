// Package agent tests the Kubernetes node agent as its DaemonSet runs it: a
// real containerd, the agent's image started by it with the mounts, capabilities
// and device rules of manifests/kubernetes, and systemd containers that are
// checkpointed and restored through containerd.
//
// What differs from a cluster: there is no kubelet (the tests translate the
// DaemonSet into what containerd is asked for), no network of its own, and no
// limits of memory and processor time. The API server that takes Events is a TLS
// server of the test that decodes them strictly.
//
// Run it with `make test-agent`.
package agent

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/pkg/namespaces"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// kubelet is containerd's namespace for what the kubelet starts.
var kubelet = namespaces.WithNamespace(context.Background(), "k8s.io")

// runDirectory is that of the light binary.
const runDirectory = "/run/autofs-restore-hook"

// archive is the agent's image.
func archive(t *testing.T) string {
	t.Helper()
	path := filepath.Join(lab.Checkout(), "bin", "autofs-restore-agent.tar")
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("the agent's image: %v (make image)", err)
	}
	return path
}
