package lab

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Attacker is a hostile process of a container.
type Attacker struct {
	PID  int // in the node's pid namespace
	stop func() string
}

// Attack starts a hostile process inside the container and returns when it says
// that it is ready. It ends with the test. The container needs
// [Options].Roles.
func (c *Container) Attack(t testing.TB, args ...string) *Attacker {
	t.Helper()
	_ = os.Remove(filepath.Join(c.Bundle, "rootfs", stopFile))
	cmd := c.Command(args...)
	out, err := os.CreateTemp("", "attack")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	a := &Attacker{}
	a.stop = sync.OnceValue(func() string {
		select {
		case <-ended:
		case <-time.After(commandLimit / 10):
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-ended
		}
		text, _ := os.ReadFile(out.Name())
		_ = os.Remove(out.Name())
		out.Close()
		return string(text)
	})
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		a.stop()
	})
	for deadline := time.Now().Add(commandLimit); ; time.Sleep(5 * time.Millisecond) {
		text, _ := os.ReadFile(out.Name())
		if bytes.Contains(text, []byte("ready")) {
			break
		}
		if time.Now().After(deadline) || len(ended) > 0 {
			t.Fatalf("the attack %q did not begin: %s", args, text)
		}
	}
	// nsenter has one child, which is the process.
	text, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "task", strconv.Itoa(cmd.Process.Pid), "children"))
	if fields := strings.Fields(string(text)); len(fields) > 0 {
		a.PID, _ = strconv.Atoi(fields[0])
	}
	return a
}

// Stop asks a loop to end, ends anything else, and returns what it wrote.
func (a *Attacker) Stop(t testing.TB, c *Container) string {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.Bundle, "rootfs", stopFile), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return a.stop()
}

// StartHostile starts a container whose PID 1 calls itself systemd, has direct
// mounts at the given paths and answers in the given style.
func StartHostile(t testing.TB, style string, paths ...string) *Container {
	t.Helper()
	c := Start(t, Options{
		Plain: true, Roles: true,
		Args:  append([]string{RoleProgram, "hostile-init"}, paths...),
		Files: map[string]string{HostileStyle: style},
	})
	waitForFile(t, filepath.Join(c.Bundle, "rootfs", HostileReady), TouchLimit)
	return c
}

// SetStyle has the hostile PID 1 answer in another way from now on.
func (c *Container) SetStyle(t testing.TB, style string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.Bundle, "rootfs", HostileStyle), []byte(style), 0o644); err != nil {
		t.Fatal(err)
	}
}
