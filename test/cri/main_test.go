// Package cri tests restores through containerd's Container Runtime Interface,
// as a kubelet drives it: a pod sandbox, a systemd container in it,
// CheckpointContainer, and CreateContainer from the archive.
//
// It needs a containerd whose CRI restores (2.1 to 2.3), which Debian sid has.
// There is no kubelet, except in TestKubernetes; the sandbox is on the host's network,
// so no CNI plugin is needed. Images come from a registry of the test on loopback: containerd pulls
// the base image again at a restore.
//
// Run it with `make test-cri`; ENGINES has the versions of containerd.
package cri

import (
	"testing"
	"time"
)

// eventually waits until a condition is met.
func eventually(t *testing.T, limit time.Duration, what string, met func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !met(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}
