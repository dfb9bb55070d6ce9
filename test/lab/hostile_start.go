package lab

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
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

// Attack starts a hostile process inside the container and returns when it is ready. It
// ends with the test. The container needs [Options].Roles. The process becomes a child of
// the container's PID 1, because its parent ends.
func (c *Container) Attack(t testing.TB, args ...string) *Attacker {
	t.Helper()
	_ = os.Remove(filepath.Join(c.Bundle, "rootfs", stopFile))
	cmd := c.Command(append([]string{"sh", "-c", `"$@" & echo "process $!"`, "sh"}, args...)...)
	out, err := os.CreateTemp("", "attack")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	a := &Attacker{}
	kill := func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // its group outlives the shell
	a.stop = sync.OnceValue(func() string {
		for deadline := time.Now().Add(commandLimit / 10); !ended(a.PID); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				kill()
			}
		}
		text, _ := os.ReadFile(out.Name())
		_ = os.Remove(out.Name())
		out.Close()
		return startedLine.ReplaceAllString(string(text), "")
	})
	t.Cleanup(func() {
		kill()
		a.stop()
	})
	runErr := cmd.Wait()
	for deadline := time.Now().Add(commandLimit); ; time.Sleep(5 * time.Millisecond) {
		text, _ := os.ReadFile(out.Name())
		if number := startedLine.FindSubmatch(text); number != nil && bytes.Contains(text, []byte("ready")) {
			a.PID = c.HostPID(t, string(number[1]))
			return a
		}
		if time.Now().After(deadline) || runErr != nil {
			t.Fatalf("the attack %q did not start: %v: %s", args, runErr, text)
		}
	}
}

// startedLine is the line of the shell that starts an attack.
var startedLine = regexp.MustCompile(`(?m)^process (\d+)\n`)

// ended reports whether a process has ended, even if not all its threads are reaped yet.
func ended(pid int) bool {
	state := processState(pid)
	return state == 0 || state == 'Z' || state == 'X'
}

// Stop makes a loop end, kills any other attack, and returns the output.
func (a *Attacker) Stop(t testing.TB, c *Container) string {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.Bundle, "rootfs", stopFile), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return a.stop()
}

// StartHostile starts a container whose PID 1 has the name systemd, has direct mounts at
// the given paths and answers in the given style.
func StartHostile(t testing.TB, style string, paths ...string) *Container {
	t.Helper()
	c := Start(t, Options{
		Plain: true, Roles: true,
		Args:  append([]string{RoleProgram, "hostile-init"}, paths...),
		Files: map[string]string{HostileStyle: style},
	})
	waitForFile(t, filepath.Join(c.Bundle, "rootfs", HostileReady), AnswerLimit)
	return c
}

// SetStyle changes the style of the hostile PID 1's answers.
func (c *Container) SetStyle(t testing.TB, style string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.Bundle, "rootfs", HostileStyle), []byte(style), 0o644); err != nil {
		t.Fatal(err)
	}
}
