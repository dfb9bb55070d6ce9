// Package cri tests restores through containerd's Container Runtime Interface,
// as a kubelet drives it: a pod sandbox, a systemd container in it,
// CheckpointContainer, and CreateContainer from the archive.
//
// It needs a containerd whose CRI restores (2.1 to 2.3), which Debian sid has.
// There is no kubelet, except in TestKubernetes; the sandbox is on the host's network,
// so no CNI plugin is needed. Images come from a registry of the test on loopback:
// containerd pulls the base image again at a restore.
//
// Run it with `make test-cri`; ENGINES has the versions of containerd.
package cri

import (
	"fmt"
	"os"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/matrix"
)

// TestMain writes the results to the file that MATRIX in the environment names.
func TestMain(m *testing.M) {
	if path := os.Getenv("ENGINE_PATH"); path != "" {
		os.Setenv("PATH", path+":"+os.Getenv("PATH"))
	}
	status := m.Run()
	if file := os.Getenv("MATRIX"); file != "" && len(rows) > 0 {
		var list []matrix.Row
		for _, r := range rows {
			list = append(list, *r)
		}
		if err := matrix.Save(file, list); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
	}
	os.Exit(status)
}
