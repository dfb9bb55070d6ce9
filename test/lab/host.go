package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The maps of a host's automount, beneath its root folder.
const (
	HostIndirect = "/hosti"     // key "data" has a file system, mounting the key "slow" takes a minute
	HostDirect   = "/hostd/one" // direct map
)

// Host is an automount daemon of the node, outside of every container.
type Host struct {
	Root string // its mounts are beneath this folder, which is shared
	PID  int
}

const hostMap = `#!/bin/sh
case $1 in
data) ;;
slow) sleep 60 ;;
*) exit 1 ;;
esac
echo "-fstype=bind :/srv/host"
`

// StartHost starts a daemon in the mount and pid namespace of the node, as a real host
// has one. It ends with the test.
func StartHost(t testing.TB) *Host {
	t.Helper()
	RequireNode(t)
	h := &Host{Root: filepath.Join(Scratch(t, newID()), "host")}
	files := map[string]string{
		"/etc/auto.master": fmt.Sprintf("%s /etc/auto.host --timeout=3600\n/- /etc/auto.hostd --timeout=3600\n", HostIndirect),
		"/etc/auto.host":   hostMap, "/etc/auto.hostd": HostDirect + " -fstype=bind :/srv/host\n",
		"/srv/host/" + Marker: HostIndirect + "\n",
	}
	if err := copyRoot(containerTree(""), h.Root, Options{Plain: true, Files: files}); err != nil {
		t.Fatalf("root folder of the host's automount: %v", err)
	}
	if err := os.Chmod(filepath.Join(h.Root, "etc/auto.host"), 0o755); err != nil {
		t.Fatal(err)
	}
	shell := `set -e; cd "$0"; mount --bind . .; cd "$0"; mount --make-shared .; mount -t proc proc proc; mount --bind /dev dev`
	if out, err := exec.Command("sh", "-c", shell, h.Root).CombinedOutput(); err != nil {
		t.Fatalf("mounts of the host's automount: %v: %s", err, out)
	}
	cmd := command("chroot", h.Root, "automount", "--foreground", "--dont-check-daemon")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h.PID = cmd.Process.Pid
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if out, err := exec.Command("umount", "--recursive", "--lazy", h.Root).CombinedOutput(); err != nil {
			t.Errorf("mounts of the host's automount: %v: %s", err, out)
		}
	})
	for deadline := time.Now().Add(bootLimit); len(h.Mounts(t)) < 2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the host's automount did not mount its maps within %s", bootLimit)
		}
	}
	return h
}

// Bind returns a bind mount of a folder of the host, with the mounts in it, for a
// container, at the same path.
func (h *Host) Bind(path, propagation string) specs.Mount {
	return specs.Mount{Destination: path, Type: "bind", Source: h.Root + path, Options: []string{"rbind", propagation}}
}

// Mounts returns the daemon's autofs mounts in the node: number, options and mount id by
// path.
func (h *Host) Mounts(t testing.TB) map[string]string {
	t.Helper()
	found := map[string]string{}
	for path, m := range Autofs(t, os.Getpid()) {
		if rest, ok := strings.CutPrefix(path, h.Root); ok {
			found[rest] = fmt.Sprintf("%d 0:%d %s", m.ID, m.Minor, m.VFSOptions)
		}
	}
	return found
}

// Read reads a file beneath the host's maps, as a process of the node.
func (h *Host) Read(path string) (string, error) {
	text, err := output("timeout", "--kill-after=1", AnswerLimit.String(), "cat", h.Root+path)
	return strings.TrimSpace(text), err
}

// Release unmounts the key "data": CRIU cannot dump a container that shows its mount.
func (h *Host) Release(t testing.TB) {
	t.Helper()
	if out, err := exec.Command("umount", h.Root+HostIndirect+"/data").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// Stop stops the daemon (SIGSTOP) until resume is called.
func (h *Host) Stop(t testing.TB) (resume func()) {
	t.Helper()
	if err := syscall.Kill(h.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	return func() { _ = syscall.Kill(h.PID, syscall.SIGCONT) }
}

// Wait starts a process of the node that waits on a path beneath the host's maps
// until the test ends.
func (h *Host) Wait(t testing.TB, path string) {
	t.Helper()
	cmd := command("cat", h.Root+path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(AnswerLimit); waitChannel(cmd.Process.Pid) != "autofs_wait"; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("a process of the node does not wait on %s", path)
		}
	}
}

// SharedFolder is a folder of the node whose mounts propagate, as of a volume that
// containers share.
func SharedFolder(t testing.TB) string {
	t.Helper()
	dir := Scratch(t, newID())
	shell := `mount --bind "$0" "$0" && mount --make-shared "$0"`
	if out, err := exec.Command("sh", "-c", shell, dir).CombinedOutput(); err != nil {
		t.Fatalf("shared folder: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "--recursive", "--lazy", dir).CombinedOutput(); err != nil {
			t.Errorf("shared folder: %v: %s", err, out)
		}
	})
	return dir
}

// Pause starts a process like the one of a pod, and returns its pid namespace, which
// containers can share.
func Pause(t testing.TB) (namespace string) {
	t.Helper()
	cmd := command("bash", "-c", "read -r end") // reaps orphans and starts no process
	cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWPID
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return fmt.Sprintf("/proc/%d/ns/pid", cmd.Process.Pid)
}
