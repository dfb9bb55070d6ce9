// Package e2e runs the program as people and engines do: with real systemd containers
// that CRIU really checkpoints and restores.
//
// Run it with `make test-e2e`. With HOOK=/bin/true the same tests show the hang without
// the program: they fail.
package e2e

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// snapshot is a checkpoint, with the container's state right before it.
type snapshot struct {
	*lab.Checkpoint
	units   map[string]lab.Unit
	forest  lab.Forest
	autofs  map[string]*mountinfo.Info // of the main namespace, by path
	covers  []string                   // [nestedCovers], of a standard container
	highest uint32                     // device number (minor) of an autofs mount
}

func take(t *testing.T, options lab.Options) *snapshot {
	t.Helper()
	c := lab.Start(t, options)
	if options.Plain {
		c.Settle(t)
		return checkpointOf(t, c)
	}
	c.Populate(t)
	covers := nestedCovers(t, c, c.Units(t))
	s := checkpointOf(t, c)
	s.covers = covers
	return s
}

var common = make(map[string]*snapshot)

// checkpoint returns the checkpoint of the standard container, which all tests share.
func checkpoint(t *testing.T) *snapshot {
	t.Helper()
	return sharedCheckpoint(t, lab.Options{})
}

// sharedCheckpoint returns the checkpoint of a container that all tests with these options
// share: restoring it takes a tenth of a second, making it two seconds. A test that
// changes the container's files, if not only in its tmpfs, has its own ([take]).
func sharedCheckpoint(t *testing.T, options lab.Options) *snapshot {
	t.Helper()
	lab.RequireNode(t)
	if options.Systemd == "bookworm" { // the default, as runc
		options.Systemd = ""
	}
	if options.Runtime == "runc" {
		options.Runtime = ""
	}
	key := fmt.Sprintf("%+v", options)
	s, made := common[key]
	if !made {
		common[key] = nil
		s = take(t, options)
		common[key] = s
	}
	if s == nil {
		t.Fatal("the checkpoint that tests share could not be made: see the first failure")
	}
	return s
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
	for i, o := range c.TouchUncovered(t, lab.AnswerLimit) {
		if !lab.UncoveredAnswers(o) {
			t.Errorf("%s, uncovered: %s; want a new tmpfs", lab.Uncovered[i], o)
		}
	}
}

// checkNoWaiters looks several times: a stuck process keeps waiting, one that triggers a
// mount waits only for a short time.
func checkNoWaiters(t *testing.T, c *lab.Container) {
	t.Helper()
	for deadline := time.Now().Add(lab.AnswerLimit); ; time.Sleep(5 * time.Millisecond) {
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
