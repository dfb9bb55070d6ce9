package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// forged are names that look like lines of the log, or like commands for a
// terminal.
var forged = []string{
	"a\nlevel=error msg=\"forged\"", "b\x1b[2J\x1b]0;owned\a", "c level=error msg=forged", "d\r\nlevel=info msg=repaired",
	"e\u202elevel", "f\xff\xfe\x00"[:3], "g\" level=error msg=\"x", `h\nlevel=error`, "i\u0085j\u2028k",
}

// TestHostileNames has mount points, processes and reasons with such names. Each entry of
// the log stays one line, and the report stays JSON.
func TestHostileNames(t *testing.T) {
	requireHook(t)
	var paths []string
	for _, name := range forged {
		paths = append(paths, "/mnt/"+name)
	}
	c := lab.StartHostile(t, "names", paths...)
	node := readNode(t)
	for i, name := range []string{"x\nlevel=error", "automount", "y\x1b[2Jz"} {
		c.Attack(t, lab.RoleProgram, "hold-pipe", name, "/held/"+forged[i])
	}
	result, report := runAttacked(t, c.PID, "--strategy", "reexec")
	if n := len(report.Mounts); n != len(forged)+3 {
		t.Errorf("%d mounts in the report, want %d", n, len(forged)+3)
	}
	for _, m := range report.Mounts {
		want := "unrepaired"
		if m.Path == "/held/"+forged[1] {
			want = "healthy" // the process with the name automount was started here
		}
		if m.Outcome != want {
			t.Errorf("%q: %s (%s), want %s", m.Path, m.Outcome, m.Reason, want)
		}
	}
	errors := 0
	for line := range strings.Lines(result.Stderr) {
		if strings.HasPrefix(line, "level=error") {
			errors++
		}
	}
	if errors == 0 || errors > 1+len(report.Mounts) {
		t.Errorf("%d errors in the log:\n%s", errors, result.Stderr)
	}
	table := lab.RunHook(t, nil, nil, "inspect", strconv.Itoa(c.PID))
	checkLog(t, table.Stderr)
	lines := strings.Split(strings.TrimSuffix(string(table.Stdout), "\n"), "\n")
	rows := 0
	for _, line := range lines {
		if strings.HasPrefix(line, "  ") && !strings.HasPrefix(line, "   ") && !strings.HasPrefix(line, "  OUTCOME") {
			rows++
		}
	}
	if rows != len(report.Mounts) {
		t.Errorf("inspect: %d rows, want %d:\n%s", rows, len(report.Mounts), table.Stdout)
	}
	for _, r := range string(table.Stdout) {
		if r < ' ' && r != '\n' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u202e' {
			t.Errorf("inspect: %q in\n%q", r, table.Stdout)
			break
		}
	}
	node.checkUnchanged(t)
}

// TestHostileWaiterNames: the same for waiters.
func TestHostileWaiterNames(t *testing.T) {
	requireHook(t)
	paths := []string{"/mnt/a\nlevel=error msg=forged"}
	c := lab.StartHostile(t, "types", paths...)
	waiter := fmt.Sprintf(`printf 'x\nlevel=error' >/proc/$$/comm; echo ready; read line <%s/marker`, "$0")
	c.Attack(t, "sh", "-c", waiter, paths[0])
	c.WaitStuck(t, 1)
	result, report := runAttacked(t, c.PID)
	if len(report.Waiting) != 1 || report.Waiting[0].Command != "x\nlevel=error" {
		t.Errorf("waiting: %+v", report.Waiting)
	}
	if !strings.Contains(result.Stderr, `waits on an automount`) {
		t.Errorf("the log does not name the waiters:\n%s", result.Stderr)
	}
}
