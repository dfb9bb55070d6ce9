package e2e

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// In tests with the prefix TestHostile the container attacks the program during a repair.
// They all check that nothing changes outside the container, that the run ends in time,
// and that its log has only its own lines.

// hostileCheckpoint is the standard container with the programs of attackers.
func hostileCheckpoint(t *testing.T) *snapshot {
	t.Helper()
	requireHook(t)
	return sharedCheckpoint(t, lab.Options{Roles: true})
}

// node has the state that no container may change: the node's own mounts.
type node struct{ mounts string }

func readNode(t *testing.T) node {
	t.Helper()
	return node{readFile(t, "/proc/self/mountinfo")}
}

// checkUnchanged checks the node's mounts, and that no process of the program is left.
func (n node) checkUnchanged(t *testing.T) {
	t.Helper()
	n.checkMounts(t)
	lab.WaitNoneRunning(t, 2*time.Second)
}

func (n node) checkMounts(t *testing.T) {
	t.Helper()
	if now := readFile(t, "/proc/self/mountinfo"); now != n.mounts {
		t.Errorf("mounts of the node:\n%s\nbefore:\n%s", now, n.mounts)
	}
}

// hostileLimit is the time limit of a run of the program, whose own deadline is 8 s.
const hostileLimit = 8500 * time.Millisecond

// runAttacked runs the program on a hostile container, and checks its log, its
// report and its time.
func runAttacked(t *testing.T, pid int, options ...string) (lab.Result, lab.Report) {
	t.Helper()
	result := lab.RunHook(t, nil, nil, append([]string{"repair", strconv.Itoa(pid), "--json"}, options...)...)
	checkLog(t, result.Stderr)
	if result.Took > hostileLimit {
		t.Errorf("the run took %s", result.Took)
	}
	if len(result.Stdout) == 0 { // only if its end was forced
		t.Logf("exit status %d after %s, no report: %s", result.Status, result.Took, result.Stderr)
		return result, lab.Report{}
	}
	if !json.Valid(result.Stdout) || slices.Contains(result.Stdout, 0x1b) {
		t.Errorf("the report is not JSON, or not fit for a terminal:\n%q", result.Stdout)
	}
	report := lab.ParseReport(t, result.Stdout)
	t.Logf("exit status %d after %s: %s", result.Status, result.Took.Round(time.Millisecond), firstReason(report))
	return result, report
}

func firstReason(report lab.Report) string {
	for _, m := range report.Mounts {
		if m.Outcome == "unrepaired" {
			return report.Outcome + ": " + strconv.Quote(m.Reason)
		}
	}
	return report.Outcome
}

// logLine matches a line of the log: a level, and a message that is quoted if it is more
// than a word.
var logLine = regexp.MustCompile(`^level=(info|warning|error) msg=("(\\.|[^"\\[:cntrl:]])*"|[^ "=[:cntrl:]]+)$`)

// checkLog checks that all lines were written by the program's logger.
func checkLog(t *testing.T, log string) {
	t.Helper()
	for line := range strings.Lines(log) {
		if !logLine.MatchString(strings.TrimSuffix(line, "\n")) {
			t.Errorf("not a line of the log: %q", line)
		}
	}
}

// checkLeft checks that all mounts of systemd are unrepaired, for the given reason.
func checkLeft(t *testing.T, result lab.Result, report lab.Report, reason string) {
	t.Helper()
	if result.Status != 1 && result.Status != 3 {
		t.Errorf("exit status %d, want 1 or 3", result.Status)
	}
	found := 0
	for _, m := range report.Mounts {
		if m.Master.Kind != "systemd" {
			continue
		}
		found++
		if m.Outcome != "unrepaired" || !strings.Contains(m.Reason, reason) {
			t.Errorf("%q: %s: %q, want unrepaired: %q", m.Path, m.Outcome, m.Reason, reason)
		}
	}
	if found == 0 {
		t.Errorf("nothing about mounts of systemd: %s", result.Stderr)
	}
}

// inContainer returns the path on the node of a file of the container, also of one on
// another mount.
func inContainer(c *lab.Container, path string) string {
	return "/proc/" + strconv.Itoa(c.PID) + "/root" + path
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
