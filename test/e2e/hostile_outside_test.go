package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// pipePasser is an impostor with the name systemd that closes the pipe of its mount on a
// signal: then only the process that received the pipe reads it.
const pipePasser = `trap 'exec 6<&-; echo >/closed' USR1
` + impostorMount + `while :; do sleep 0.1; done
`

// TestHostilePipe has a container pass the pipe of its mount to a process of the node,
// which then seems to be the master. The program does not connect to it or signal it.
func TestHostilePipe(t *testing.T) {
	requireHook(t)
	c := lab.Start(t, lab.Options{
		Plain: true, Files: map[string]string{"/impostor": pipePasser},
		Args: []string{"/bin/bash", "-c", "cp /bin/bash /usr/local/systemd; exec /usr/local/systemd /impostor"},
	})
	root := filepath.Join(c.Bundle, "rootfs")
	waitUntil(t, "the container has mounted", func() bool { return exists(filepath.Join(root, "ready")) })
	pipe, err := os.Open("/proc/" + strconv.Itoa(c.PID) + "/fd/6") // as if by SCM_RIGHTS
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	if err := syscall.Kill(c.PID, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the container has closed the pipe", func() bool { return exists(filepath.Join(root, "closed")) })
	node := readNode(t)
	for _, command := range []string{"inspect", "repair"} {
		report, trace := tracedHook(t, command, c.PID)
		checkOutside(t, report, "/mnt/fake")
		checkNoContact(t, command, trace)
		for _, m := range report.Mounts {
			if m.Master.PID != os.Getpid() {
				t.Errorf("%s: master %d, want this process, %d", command, m.Master.PID, os.Getpid())
			}
		}
	}
	node.checkUnchanged(t)
}

// checkNoContact fails on system calls that connect to, signal or trace another process.
func checkNoContact(t *testing.T, command, trace string) {
	t.Helper()
	for line := range strings.Lines(trace) {
		if strings.Contains(line, " connect(") && !strings.Contains(line, "journal") || strings.Contains(line, "ptrace(") ||
			strings.Contains(line, "pidfd_send_signal(") && !strings.Contains(line, ", 0, NULL") {
			t.Errorf("%s: %s", command, line)
		}
	}
}

// TestInjectedMaster has an administrator enter a container and serve a mount there. That
// process is not the container's: CRIU would neither dump nor restore it.
func TestInjectedMaster(t *testing.T) {
	requireHook(t)
	const path = "/mnt/injected"
	c := lab.Start(t, lab.Options{Plain: true, Roles: true, Args: []string{"sleep", "1000"}})
	cmd := c.Command(lab.RoleProgram, "serve", lab.CachesDev, path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	waitUntil(t, "it has mounted", func() bool { return lab.Autofs(t, c.PID)[path] != nil })
	for _, command := range []string{"inspect", "repair"} {
		report, trace := tracedHook(t, command, c.PID)
		checkOutside(t, report, path)
		checkNoContact(t, command, trace)
	}
	c.CheckAnswers(t, []lab.Access{{Path: path + "/" + lab.Marker, Content: path, About: "an injected master"}})
}
