package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// status returns the fields of /proc/<pid>/status.
func status(pid int) (map[string]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil, err
	}
	fields := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		fields[key] = strings.TrimSpace(value)
	}
	return fields, nil
}

// CheckUntouched reports processes of the container that are still traced, stopped or
// frozen, or have signals pending, after a program has done that.
func (c *Container) CheckUntouched(t testing.TB) {
	t.Helper()
	namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", c.PID))
	if err != nil {
		t.Fatal(err)
	}
	traced, interrupted := c.traces(namespace)
	for _, text := range traced {
		t.Error(text)
	}
	// A child that ends leaves a signal pending for a short time; one sent by a program
	// stays.
	for deadline := time.Now().Add(AnswerLimit); len(interrupted) > 0 && time.Now().Before(deadline); _, interrupted = c.traces(namespace) {
		time.Sleep(5 * time.Millisecond)
	}
	for _, text := range interrupted {
		t.Error(text)
	}
	dirs, err := listCgroups(c.groups)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		text, err := os.ReadFile(filepath.Join(dir, "cgroup.freeze"))
		if err == nil && strings.TrimSpace(string(text)) != "0" {
			t.Errorf("%s is frozen", dir)
		}
	}
}

// traces returns the processes of the pid namespace that are traced, and those that are
// stopped, or are PID 1 and have signals pending.
func (c *Container) traces(namespace string) (traced, interrupted []string) {
	for _, p := range processes() {
		if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", p)); err != nil || ns != namespace {
			continue
		}
		fields, err := status(p)
		if err != nil {
			continue // it has ended
		}
		if tracer := fields["TracerPid"]; tracer != "0" {
			traced = append(traced, fmt.Sprintf("process %d (%s) is traced by process %s", p, fields["Name"], tracer))
		}
		if p == c.PID {
			for _, name := range []string{"SigPnd", "ShdPnd"} {
				if strings.Trim(fields[name], "0") != "" {
					interrupted = append(interrupted, fmt.Sprintf("PID 1 has signals pending: %s %s", name, fields[name]))
				}
			}
		}
		if state := fields["State"]; strings.ContainsAny(state[:1], "tT") {
			interrupted = append(interrupted, fmt.Sprintf("process %d (%s) is stopped: %s", p, fields["Name"], state))
		}
	}
	return traced, interrupted
}

// WaitStuck waits until the given number of the container's processes wait for
// an autofs master.
func (c *Container) WaitStuck(t testing.TB, count int) {
	t.Helper()
	var stuck int
	for deadline := time.Now().Add(AnswerLimit); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		stuck = 0
		for _, w := range c.Waiters(t) {
			if w.Where == "autofs_wait" {
				stuck++
			}
		}
		if stuck >= count {
			return
		}
	}
	t.Fatalf("container %s: %d processes wait on autofs mounts, want %d", c.ID, stuck, count)
}
