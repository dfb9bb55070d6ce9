// Package e2e runs the program as people and engines do: with real systemd containers
// that CRIU really checkpoints and restores.
//
// Run it with `make test-e2e`. With HOOK=/bin/true the same tests show the hang without
// the program: they fail.
package e2e

import (
	"os"
	"sync"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// snapshot is a checkpoint, with the container's state right before it.
type snapshot struct {
	*lab.Checkpoint
	units   map[string]lab.Unit
	highest uint32 // device number (minor) of an autofs mount
}

func take(t *testing.T, options lab.Options) *snapshot {
	t.Helper()
	c := lab.Start(t, options)
	s := &snapshot{}
	if options.Plain {
		s.units = c.Settle(t)
	} else {
		c.Populate(t)
		s.units = c.Units(t)
	}
	for _, m := range lab.Autofs(t, c.PID) {
		s.highest = max(s.highest, uint32(m.Minor))
	}
	s.Checkpoint = c.Checkpoint(t)
	return s
}

var (
	once   sync.Once
	common *snapshot
)

// checkpoint is shared by all tests that can use the standard container: restoring it
// takes a tenth of a second, making it two seconds.
func checkpoint(t *testing.T) *snapshot {
	t.Helper()
	lab.RequireNode(t)
	once.Do(func() { common = take(t, lab.Options{}) })
	if common == nil {
		t.Fatal("the checkpoint that all tests share could not be made: see the first failure")
	}
	return common
}

// requireHook fails when the program under test was not built.
func requireHook(t *testing.T) {
	t.Helper()
	lab.RequireNode(t)
	if _, err := os.Stat(lab.Hook()); err != nil {
		t.Fatalf("the program under test: %v (make build, or HOOK=/path)", err)
	}
}

// restoreWithHook restores with the program as CRIU's action script.
func restoreWithHook(t *testing.T, s *snapshot, options lab.RestoreOptions) *lab.Restored {
	t.Helper()
	requireHook(t)
	lab.InstallActionScript(t, lab.Hook())
	r := s.Restore(t, options)
	t.Logf("restored in %s with %s", r.Took, lab.Hook())
	logIfFailed(t, r)
	return r
}

// logIfFailed prints what the program wrote at a restore, if the test fails.
func logIfFailed(t *testing.T, r *lab.Restored) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("The program's lines in CRIU's log:\n%s", hookLines(r.Log))
		}
	})
}

// restoreStale restores without the program, but with the control groups that CRIU needs:
// without those the restore fails (TestFailsWithoutGroups).
func restoreStale(t *testing.T, s *snapshot) *lab.Restored {
	t.Helper()
	s.InstallGroupsOnly(t)
	return s.Restore(t, lab.RestoreOptions{})
}

// checkUncovered unmounts the covers, after reading the mounts beneath the upper one, and
// reports covered automounts that do not mount a new file system.
func checkUncovered(t *testing.T, c *lab.Container) {
	t.Helper()
	c.Unhide(t)
	c.CheckAnswers(t, lab.Hidden)
	c.Uncover(t)
	for i, o := range c.TouchUncovered(t, lab.TouchLimit) {
		if !lab.UncoveredAnswers(o) {
			t.Errorf("%s, uncovered: %s; want a new tmpfs", lab.Uncovered[i], o)
		}
	}
}

// checkNoWaiters looks several times: a stuck process keeps waiting, one that triggers a
// mount waits only for a short time.
func checkNoWaiters(t *testing.T, c *lab.Container) {
	t.Helper()
	for deadline := time.Now().Add(lab.TouchLimit); ; time.Sleep(5 * time.Millisecond) {
		waiters := c.Waiters(t)
		if len(waiters) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("processes are stuck on autofs mounts: %+v", waiters)
			return
		}
	}
}
