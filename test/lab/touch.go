package lab

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TouchLimit is how long a touch may take. A healthy automount needs a few
// milliseconds; the rest is for a busy machine.
const TouchLimit = 3 * time.Second

// Touch is the outcome of one access to a path of the container.
type Touch struct {
	Hung    bool   // did not end within the limit, and was killed
	Waiting bool   // Hung, and the kernel said: in autofs_wait
	Output  string // the file's content, or an error
	Failed  bool   // the command reported an error
	Took    time.Duration
}

func (o Touch) String() string {
	switch {
	case o.Waiting:
		return fmt.Sprintf("hangs (in autofs_wait after %s)", o.Took.Round(time.Millisecond))
	case o.Hung:
		return fmt.Sprintf("hangs (not in autofs_wait, after %s)", o.Took.Round(time.Millisecond))
	case o.Failed:
		return fmt.Sprintf("fails: %s", strings.TrimSpace(o.Output))
	}
	return fmt.Sprintf("answers in %s: %q", o.Took.Round(time.Millisecond), strings.TrimSpace(o.Output))
}

// Touch reads a file inside the container, within a limit.
func (c *Container) Touch(t testing.TB, path string, limit time.Duration) Touch {
	t.Helper()
	return c.TouchAll(t, []string{path}, limit)[0]
}

// TouchAll reads files inside the container, all at the same time: several that
// hang take one limit, not many.
func (c *Container) TouchAll(t testing.TB, paths []string, limit time.Duration) []Touch {
	t.Helper()
	out := make([]Touch, len(paths))
	done := make(chan error)
	for i, path := range paths {
		go func() {
			var err error
			out[i], err = c.attempt(limit, "cat", path)
			done <- err
		}()
	}
	for range paths {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	return out
}

// Try runs a command inside the container, within a limit.
func (c *Container) Try(t testing.TB, limit time.Duration, args ...string) Touch {
	t.Helper()
	o, err := c.attempt(limit, args...)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func (c *Container) attempt(limit time.Duration, args ...string) (Touch, error) {
	file, err := os.CreateTemp("", "touch")
	if err != nil {
		return Touch{}, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	cmd := c.Command(args...)
	cmd.Stdout, cmd.Stderr = file, file
	started := time.Now()
	if err := cmd.Start(); err != nil {
		return Touch{}, err
	}
	group := cmd.Process.Pid
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	var o Touch
	select {
	case err = <-done:
	case <-time.After(limit):
		o.Hung = true
		o.Waiting = groupWaits(group)
		// autofs_wait is killable (kernel: fs/autofs/waitq.c).
		_ = syscall.Kill(-group, syscall.SIGKILL)
		err = <-done
	}
	o.Took = time.Since(started)
	o.Failed = err != nil && !o.Hung
	text, err := os.ReadFile(file.Name())
	o.Output = string(text)
	return o, err
}

// groupWaits reports that a process of the group is in autofs_wait.
func groupWaits(group int) bool {
	for _, p := range processes() {
		if id, err := syscall.Getpgid(p); err == nil && id == group && waitChannel(p) == "autofs_wait" {
			return true
		}
	}
	return false
}

// Waiter is a process that is stuck on an autofs mount.
type Waiter struct {
	PID     int // in the node's pid namespace
	Command string
	Where   string // kernel function it sleeps in
}

// Waiters lists the container's processes that wait for an autofs master, or
// sleep in the kernel without being woken by signals (state D).
func (c *Container) Waiters(t testing.TB) []Waiter {
	t.Helper()
	namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", c.PID))
	if err != nil {
		t.Fatal(err)
	}
	var out []Waiter
	for _, p := range processes() {
		if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", p)); err != nil || ns != namespace {
			continue
		}
		channel := waitChannel(p)
		if !strings.HasPrefix(channel, "autofs_") && processState(p) != 'D' {
			continue
		}
		command, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		out = append(out, Waiter{PID: p, Command: strings.TrimSpace(string(command)), Where: channel})
	}
	return out
}

func processes() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func waitChannel(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", pid))
	return string(text)
}

func processState(pid int) byte {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, ok := strings.Cut(string(text), ") ")
	if !ok || rest == "" {
		return 0
	}
	return rest[0]
}

// HostPID returns the number in the node's pid namespace of a process that has
// the given number inside the container.
func (c *Container) HostPID(t testing.TB, inside string) int {
	t.Helper()
	namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", c.PID))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range processes() {
		if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", p)); err != nil || ns != namespace {
			continue
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(status)) {
			// NSpid lists the numbers from the outermost namespace to the innermost.
			if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "NSpid:" && fields[len(fields)-1] == inside {
				return p
			}
		}
	}
	t.Fatalf("container %s: no process has the number %s", c.ID, inside)
	return 0
}
