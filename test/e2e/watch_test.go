package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// watcherLimit is how long a watcher may need after the restore.
const watcherLimit = 10 * time.Second

// withHook returns options for a container whose engine calls the program as a
// createRuntime hook, the only hook that runc runs at a restore.
func withHook() lab.Options {
	timeout := 10
	return lab.Options{Hooks: &specs.Hooks{CreateRuntime: []specs.Hook{{
		Path: lab.Hook(), Args: []string{"autofs-restore-hook", "createRuntime"}, Timeout: &timeout,
	}}}}
}

// TestWatcher restores with an OCI hook only: no action script is installed.
func TestWatcher(t *testing.T) {
	requireHook(t)
	plain := restoreStale(t, checkpoint(t))
	plain.Kill(t)

	s := take(t, withHook()) // a fresh start with the hook, too
	if running := lab.Running(); len(running) > 0 {
		t.Errorf("a fresh start left processes of the program: %q", running)
	}
	lab.InstallActionScript(t, "")
	r := s.Restore(t, lab.RestoreOptions{})
	t.Logf("restored in %s, without the hook in %s", r.Took, plain.Took)
	if r.Took > plain.Took+lab.TouchLimit {
		t.Errorf("the hook delayed runc: %s, without it %s", r.Took, plain.Took)
	}
	t.Logf("the watcher ended %s later", lab.WaitNoneRunning(t, watcherLimit))
	checkUnits(t, s, r)
	checkReexecuted(t, r)
	r.CheckAnswers(t, lab.Accesses)
	checkNoWaiters(t, r.Container)
	checkUncovered(t, r.Container)
}

// TestWatcherAndActionScript has both installed. The action script does the repair, once.
func TestWatcherAndActionScript(t *testing.T) {
	requireHook(t)
	s := take(t, withHook())
	r := restoreWithHook(t, s, lab.RestoreOptions{})
	if running := lab.Running(); len(running) > 0 {
		t.Logf("at the end of the restore: %q", running)
	}
	lab.WaitNoneRunning(t, watcherLimit)
	if trigger := r.ReadReport(t).Trigger; !strings.HasPrefix(trigger, "criu:") {
		t.Errorf("report: by %s, want it by CRIU's action script", trigger)
	}
	checkUnits(t, s, r)
	checkPreserved(t, r)
	r.CheckAnswers(t, lab.Accesses)
	checkNoWaiters(t, r.Container)
}
