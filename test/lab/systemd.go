package lab

import (
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

// output runs a command inside the container and returns its output, which goes to a
// file: a stuck grandchild would keep a pipe open.
func (c *Container) output(limit time.Duration, args ...string) (string, error) {
	file, err := os.CreateTemp("", "output")
	if err != nil {
		return "", err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	cmd := c.Command(args...)
	cmd.Stdout, cmd.Stderr = file, file
	err = runLimited(cmd, limit)
	text, readErr := os.ReadFile(file.Name())
	if readErr != nil {
		return "", readErr
	}
	return string(text), err
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
	text := c.Run(t, "systemctl", "show", "--all", "--property=Id,ActiveState,SubState,MainPID,InvocationID", "*")
	units := make(map[string]Unit)
	for block := range strings.SplitSeq(text, "\n\n") {
		fields := make(map[string]string)
		for line := range strings.Lines(block) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			fields[key] = value
		}
		if id := fields["Id"]; id != "" {
			units[id] = Unit{fields["ActiveState"], fields["SubState"], fields["MainPID"], fields["InvocationID"]}
		}
	}
	return units
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
