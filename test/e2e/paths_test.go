package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// systemdCures are the ways in which a mount of systemd is repaired by an
// action script.
var systemdCures = []string{"preserved", "reexecuted", "restarted"}

// restoreTo restores with the program as CRIU's action script, where only one cure is
// possible for the mounts of systemd. before, if it is not nil, is called right before
// the runtime.
func restoreTo(t *testing.T, s *snapshot, cure string, before func()) *lab.Restored {
	t.Helper()
	requireHook(t)
	program := filepath.Join(filepath.Dir(s.Images), "rootfs/usr/lib/systemd/systemd")
	script := ""
	if cure == "restarted" {
		// A systemd whose program file does not exist does not re-execute itself.
		script = fmt.Sprintf("[ $CRTOOLS_SCRIPT_ACTION != pre-resume ] || mv %s %[1]s.away\n", program)
		back := func() { _ = os.Rename(program+".away", program) }
		t.Cleanup(back)
		defer back()
	}
	lab.InstallWrappedScript(t, lab.Hook(), script)
	r := s.Restore(t, lab.RestoreOptions{Before: func() {
		if cure != "preserved" {
			lab.HoldNumbersUpTo(t, s.highest)
		}
		if before != nil {
			before()
		}
	}})
	t.Logf("restored in %s", r.Took)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("The program's lines in CRIU's log:\n%s", hookLines(r.Log))
		}
	})
	return r
}

// checkpointOf checkpoints a container.
func checkpointOf(t *testing.T, c *lab.Container) *snapshot {
	t.Helper()
	units := c.Units(t)
	s := checkpointWithoutSystemd(t, c)
	s.units = units
	return s
}

// checkpointWithoutSystemd is checkpointOf for a container that has no units.
func checkpointWithoutSystemd(t *testing.T, c *lab.Container) *snapshot {
	t.Helper()
	s := &snapshot{forest: c.Forest(t), autofs: lab.Autofs(t, c.PID)}
	for _, m := range s.autofs {
		s.highest = max(s.highest, uint32(m.Minor))
	}
	s.Checkpoint = c.Checkpoint(t)
	return s
}
