package cri

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// startAgent starts the agent on the node, without its container: test/agent runs
// it as its DaemonSet does. It ends with the test.
func startAgent(t *testing.T) (listen string) {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listen = free.Addr().String()
	free.Close()
	log, err := os.Create(filepath.Join(lab.Scratch(t, "agent"), fmt.Sprintf("log-%d", time.Now().UnixNano())))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(lab.Checkout(), "bin", "autofs-restore-agent"),
		"--hook="+lab.Hook(), "--install=false", "--events=false", "--listen="+listen, "--log-level=debug")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // says that it was killed
		text, _ := os.ReadFile(log.Name())
		t.Logf("the agent's log:\n%s", text)
	})
	waitReady(t, listen)
	return listen
}

// waitReady waits until the agent is ready.
func waitReady(t *testing.T, listen string) {
	t.Helper()
	lab.Eventually(t, 15*time.Second, "the agent is ready", func() bool {
		r, err := http.Get("http://" + listen + "/readyz")
		if err != nil {
			return false
		}
		r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
}
