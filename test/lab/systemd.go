package lab

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Command returns a command inside all namespaces of the container. It waits on a stale
// automount as any process of the container does: a process from outside the master's pid
// namespace would get ENOENT instead.
func (c *Container) Command(args ...string) *exec.Cmd {
	cmd := exec.Command("nsenter", append([]string{
		"--target", strconv.Itoa(c.PID), "--mount", "--uts", "--ipc", "--pid", "--cgroup", "--",
	}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// Run runs a command inside the container that must succeed, and returns its output.
func (c *Container) Run(t testing.TB, args ...string) string {
	t.Helper()
	out, err := c.output(commandLimit, args...)
	if err != nil {
		t.Fatalf("in container %s: %s: %v: %s", c.ID, strings.Join(args, " "), err, out)
	}
	return out
}

// output runs a command inside the container and returns its output.
func (c *Container) output(limit time.Duration, args ...string) (string, error) {
	return combinedOutput(c.Command(args...), limit)
}

// SystemdVersion returns the version of the container's systemd, such as 252.
func (c *Container) SystemdVersion(t testing.TB) int {
	t.Helper()
	var version int
	out := c.Run(t, "systemctl", "--version")
	if _, err := fmt.Sscanf(out, "systemd %d", &version); err != nil {
		t.Fatalf("container %s: systemctl --version: %q", c.ID, out)
	}
	return version
}

func (c *Container) waitBooted(t testing.TB) {
	t.Helper()
	var state string
	for deadline := time.Now().Add(bootLimit); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		out, _ := c.output(commandLimit, "systemctl", "is-system-running")
		switch state = strings.TrimSpace(out); state {
		case "running":
			return
		case "degraded":
			t.Fatalf("container %s: units failed at boot:\n%s", c.ID, c.Run(t, "systemctl", "--failed", "--no-legend", "--plain"))
		}
	}
	t.Fatalf("container %s: systemd did not boot within %s, last state %q", c.ID, bootLimit, state)
}

// Unit has the properties that must not change if the unit's service was not interrupted.
type Unit struct {
	ActiveState, SubState, MainPID, InvocationID string
}

// Units returns the state of all units that the container's systemd has loaded.
func (c *Container) Units(t testing.TB) map[string]Unit {
	t.Helper()
	units, _ := c.unitsAndJobs(t)
	return units
}

// unitsAndJobs is Units with the number of units that have a job.
func (c *Container) unitsAndJobs(t testing.TB) (units map[string]Unit, jobs int) {
	t.Helper()
	program, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	cmd := c.Command("/proc/self/fd/3", "units") // the first of ExtraFiles
	cmd.ExtraFiles = []*os.File{program}
	cmd.Env = append(os.Environ(), roleVariable+"=1")
	text, err := combinedOutput(cmd, commandLimit)
	if err != nil {
		t.Fatalf("in container %s: units: %v: %s", c.ID, err, text)
	}
	units = make(map[string]Unit)
	for line := range strings.Lines(text) {
		var u listedUnit
		if err := json.Unmarshal([]byte(line), &u); err != nil {
			t.Fatalf("in container %s: units: %v: %s", c.ID, err, line)
		}
		units[u.Name] = u.Unit
		if u.Job {
			jobs++
		}
	}
	return units, jobs
}

// UnitChanges returns the units that have changed, sorted.
func UnitChanges(before, after map[string]Unit) []string {
	var changes []string
	for id, b := range before {
		if a, ok := after[id]; !ok {
			changes = append(changes, fmt.Sprintf("%s: %+v, now not loaded", id, b))
		} else if a != b {
			changes = append(changes, fmt.Sprintf("%s: %+v, now %+v", id, b, a))
		}
	}
	for id, a := range after {
		if _, ok := before[id]; !ok {
			changes = append(changes, fmt.Sprintf("%s: not loaded, now %+v", id, a))
		}
	}
	slices.Sort(changes)
	return changes
}
