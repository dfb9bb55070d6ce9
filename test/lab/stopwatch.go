package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// A stopwatch is a process of the container that reads one file repeatedly from the
// restore on, and measures the longest read. Its result is on a tmpfs of the container,
// so that clones of one checkpoint can run at the same time. It needs little of the
// processor, which a hundred clones share.
const (
	stopwatchUnit   = "stopwatch.service"
	stopwatchStart  = "/stopwatch.go"
	stopwatchReady  = "/stopwatch.ready"
	stopwatchResult = "/run/stopwatch"
	stopwatchPause  = 5 * time.Millisecond
	// stopwatchTime is how long it reads.
	stopwatchTime = 2 * time.Second
)

// StopwatchFiles are the files of a container with a stopwatch. It needs
// [Options].Roles, too.
func StopwatchFiles(a Access) map[string]string {
	return map[string]string{
		"/etc/systemd/system/" + stopwatchUnit: fmt.Sprintf("[Service]\nExecStart=%s stopwatch %s %s\n", RoleProgram, a.Path, a.Content),
	}
}

// StartStopwatch starts the stopwatch, which waits for [Checkpoint.ReleaseStopwatches].
func (c *Container) StartStopwatch(t testing.TB) {
	t.Helper()
	c.Run(t, "systemctl", "start", stopwatchUnit)
	waitForFile(t, filepath.Join(c.Bundle, "rootfs", stopwatchReady), TouchLimit)
}

// ReleaseStopwatches makes the stopwatches of all clones start, or wait for their start.
func (cp *Checkpoint) ReleaseStopwatches(t testing.TB, start bool) {
	t.Helper()
	path := filepath.Join(cp.Root(), stopwatchStart)
	err := os.Remove(path)
	if start {
		err = os.WriteFile(path, nil, 0o644)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}

// LongestRead waits for the result of the container's stopwatch.
func (c *Container) LongestRead(limit time.Duration) (time.Duration, error) {
	path := fmt.Sprintf("/proc/%d/root%s", c.PID, stopwatchResult)
	for deadline := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		text, err := os.ReadFile(path)
		if err == nil {
			return time.ParseDuration(string(text))
		}
		if time.Now().After(deadline) {
			return 0, fmt.Errorf("container %s: its stopwatch has no result: %w", c.ID, err)
		}
	}
}

// runStopwatch is the stopwatch; the arguments are a path and the content of that file.
func runStopwatch(args []string) error {
	runtime.GOMAXPROCS(1)
	if err := os.WriteFile(stopwatchReady, nil, 0o644); err != nil {
		return err
	}
	for {
		if _, err := os.Stat(stopwatchStart); err == nil {
			break
		}
		time.Sleep(stopwatchPause)
	}
	var longest time.Duration
	for begin := time.Now(); time.Since(begin) < stopwatchTime; time.Sleep(stopwatchPause) {
		before := time.Now()
		text, err := os.ReadFile(args[0])
		longest = max(longest, time.Since(before))
		if got := strings.TrimSpace(string(text)); err != nil || got != args[1] {
			return os.WriteFile(stopwatchResult, fmt.Appendf(nil, "%q %v", got, err), 0o644)
		}
	}
	if err := os.WriteFile(stopwatchResult+".new", []byte(longest.String()), 0o644); err != nil {
		return err
	}
	return os.Rename(stopwatchResult+".new", stopwatchResult)
}
