package lab

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// Report is the program's report about one container (DESIGN.md, contract of the light
// binary).
type Report struct {
	Container  string        `json:"container"`
	PID        int           `json:"pid"`
	Trigger    string        `json:"trigger"`
	Stage      string        `json:"moment"`
	DurationMS float64       `json:"duration_ms"`
	Outcome    string        `json:"outcome"`
	Mounts     []ReportMount `json:"mounts"`
	Waiting    []struct {
		PID     int    `json:"pid"`
		Command string `json:"command"`
		Path    string `json:"path"`
	} `json:"waiting"`
}

// ReportMount is the part of a report about one autofs mount.
type ReportMount struct {
	Path           string `json:"path"`
	MountNamespace uint64 `json:"mount_namespace"`
	Type           string `json:"type"`
	Master         struct {
		Kind string `json:"kind"`
		PID  int    `json:"pid"`
		Unit string `json:"unit"`
	} `json:"master"`
	DeviceBefore    string   `json:"device_before"`
	DeviceNow       string   `json:"device_now"`
	Outcome         string   `json:"outcome"`
	Reason          string   `json:"reason"`
	Unjudged        bool     `json:"unjudged"`
	CoveredBy       []string `json:"covered_by"`
	WaitersReleased int      `json:"waiters_released"`
	WaitersRefused  int      `json:"waiters_refused"`
}

// ReadReport reads and validates the program's last report about the container.
func (c *Container) ReadReport(t testing.TB) Report {
	t.Helper()
	return ParseReport(t, c.reportText(t))
}

// ReadOldReport is ReadReport for a build of the program that may be older than the
// schema.
func (c *Container) ReadOldReport(t testing.TB) Report {
	t.Helper()
	return decodeReport(t, c.reportText(t))
}

func (c *Container) reportText(t testing.TB) []byte {
	t.Helper()
	text, err := os.ReadFile(c.reportPath())
	if err != nil {
		t.Errorf("the program left no report: %v", err)
	}
	return text
}

// ParseReport reads a report and validates it.
func ParseReport(t testing.TB, text []byte) Report {
	t.Helper()
	r := decodeReport(t, text)
	validateReport(t, text)
	return r
}

func decodeReport(t testing.TB, text []byte) Report {
	t.Helper()
	var r Report
	if err := json.Unmarshal(text, &r); err != nil {
		t.Errorf("report: %v\n%s", err, text)
	}
	return r
}

// Result is the result of a run of the program.
type Result struct {
	Status int
	Stdout []byte
	Stderr string
	Took   time.Duration
}

// RunHook runs the program under test. It must end a little after its own deadline of 8 s
// at the latest.
func RunHook(t testing.TB, stdin []byte, env []string, args ...string) Result {
	t.Helper()
	return runProgram(t, Hook(), stdin, env, args...)
}

// RunProgram is RunHook for a program that starts the one under test.
func RunProgram(t testing.TB, program string, args ...string) Result {
	t.Helper()
	return runProgram(t, program, nil, nil, args...)
}

func runProgram(t testing.TB, program string, stdin []byte, env []string, args ...string) Result {
	t.Helper()
	cmd := exec.Command(program, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	// A child that outlives the program must not block the test by its pipes.
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool {
		return len(v) > 8 && v[:8] == "CRTOOLS_"
	}), env...)
	started := time.Now()
	err := runLimited(cmd, Limit(9*time.Second))
	r := Result{Stdout: stdout.Bytes(), Stderr: stderr.String(), Took: time.Since(started)}
	var exit *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit):
		r.Status = exit.ExitCode()
	default:
		t.Errorf("%s %v: %v (%s)", program, args, err, r.Stderr)
		r.Status = -1
	}
	return r
}

// HasReport reports whether there is a report about the container.
func (c *Container) HasReport() bool {
	_, err := os.Stat(c.reportPath())
	return err == nil
}

func (c *Container) reportPath() string {
	return filepath.Join("/run/autofs-restore-hook/reports", c.ID+".json")
}
