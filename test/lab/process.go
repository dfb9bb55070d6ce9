package lab

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// groupWaits reports whether a process of the group is in autofs_wait.
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

// Waiters returns the container's processes that wait for an autofs master, or sleep
// uninterruptibly in the kernel (state D).
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
