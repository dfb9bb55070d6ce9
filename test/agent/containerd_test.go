package agent

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

const socket = "/run/containerd/containerd.sock"

// daemon is a containerd of the node.
type daemon struct {
	dir     string
	process *exec.Cmd
	client  *client.Client
}

// startContainerd starts containerd without its CRI plugin, which would want a
// network. It ends with the test.
func startContainerd(t *testing.T) *daemon {
	t.Helper()
	lab.RequireNode(t)
	d := &daemon{dir: lab.Scratch(t, "containerd")}
	config := fmt.Sprintf("version = 2\nroot = %q\nstate = \"/run/containerd\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\n  address = %q\n",
		filepath.Join(d.dir, "root"), socket)
	if err := os.WriteFile(filepath.Join(d.dir, "config.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	d.start(t)
	t.Cleanup(func() {
		d.client.Close()
		d.kill(t)
	})
	return d
}

func (d *daemon) start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	d.process = exec.Command("containerd", "--config", filepath.Join(d.dir, "config.toml"))
	d.process.Stdout, d.process.Stderr = log, log
	d.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.process.Start(); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, 20*time.Second, "containerd answers (its log: "+log.Name()+")", func() bool {
		if d.client == nil {
			d.client, err = client.New(socket, client.WithTimeout(time.Second))
			if err != nil {
				return false
			}
		}
		serving, err := d.client.IsServing(kubelet)
		return serving && err == nil
	})
}

// kill ends containerd; its shims and containers go on.
func (d *daemon) kill(t *testing.T) {
	t.Helper()
	if err := d.process.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = d.process.Wait() // says that it was killed
}
