// Package apiserver applies manifests/kubernetes to a real API server with kubectl, as
// users do: etcd, kube-apiserver and kube-controller-manager are built from their
// modules and run as processes of their own on loopback.
//
// What differs from a cluster: there is no kubelet and no scheduler, so pods are
// created and admitted but never run. The one node is an object only.
//
// Run it with `make test-apiserver`.
package apiserver

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// checkout is the root of the repository, and manifests its manifests/kubernetes.
var checkout, manifests string

// patience bounds how long a test waits for a controller.
const patience = time.Minute

// running is the cluster of all tests.
var running *cluster

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "apiserver")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if checkout, err = filepath.Abs("../.."); err == nil {
		manifests = filepath.Join(checkout, "manifests", "kubernetes")
		running = &cluster{dir: dir, programs: filepath.Join(checkout, "bin", "apiserver")}
		defer running.stop()
		err = running.start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "start the cluster:", err)
		return 1
	}
	return m.Run()
}

// command is kubectl as the cluster's administrator.
func command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(running.programs, "kubectl"), args...)
	cmd.Env = append(os.Environ(), "HOME="+running.dir, "KUBECONFIG="+running.path("kubeconfig"),
		"PATH="+running.programs+":"+os.Getenv("PATH"))
	return cmd
}

// kubectl returns what kubectl prints. The test fails if the API server refuses
// it or warns of anything.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	return output(t, command(args...))
}

func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || strings.Contains(stderr.String(), "Warning:") {
		t.Fatalf("%s: %v\n%s%s", strings.Join(cmd.Args[1:], " "), err, out, stderr.String())
	}
	return string(out)
}

// refused returns why a call of kubectl fails.
func refused(t *testing.T, args ...string) string {
	t.Helper()
	out, err := command(args...).CombinedOutput()
	if err == nil {
		t.Errorf("kubectl %s is not refused:\n%s", strings.Join(args, " "), out)
	}
	return string(out)
}

// get decodes an object, or a list of objects.
func get[Object any](t *testing.T, args ...string) (o Object) {
	t.Helper()
	text := kubectl(t, append([]string{"get", "--output=json"}, args...)...)
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatalf("get %q: %v\n%s", args, err, text)
	}
	return o
}

// eventually waits for what a controller does.
func eventually(t *testing.T, what string, met func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !met(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}
