package e2e

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// helperLimit is how long a process of the program may outlive a failed restore.
const helperLimit = 10 * time.Second

// TestCRIUKilled kills CRIU between Reserve and Preserve.
func TestCRIUKilled(t *testing.T) {
	for _, stage := range []string{"setup-namespaces", "post-setup-namespaces"} {
		t.Run(stage, func(t *testing.T) {
			// runc waits for the end of the process that CRIU was restoring.
			failedRestore(t, stage, "kill -9 $PPID; kill -9 $CRTOOLS_INIT_PID; exit 1")
		})
	}
}

// TestRestoreFails makes a restore fail when all processes exist.
func TestRestoreFails(t *testing.T) {
	failedRestore(t, "post-restore", "exit 1")
}

// failedRestore makes a restore fail at a stage; the next one must work.
func failedRestore(t *testing.T, stage, failure string) {
	requireHook(t)
	s := checkpoint(t)
	failing := func(hook, before string) {
		lab.InstallWrappedScript(t, hook, `if [ "$CRTOOLS_SCRIPT_ACTION" = `+stage+` ]; then
	`+before+`
	`+failure+`
fi
`)
		if r, err := s.TryRestore(t, lab.RestoreOptions{}); err == nil {
			r.Kill(t)
			t.Fatalf("the restore worked, but its action script failed at %s", stage)
		}
	}
	// A killed CRIU leaves its own file systems behind, also without the program.
	before := lab.FreeNumber(t)
	failing("/bin/true", "")
	s.KillRemains(t)
	free := lab.FreeNumber(t)
	criusOwn := free - before

	reserved := lab.Scratch(t, "reserved") + "/" + stage
	// The helper of Reserve must exist: without it the test shows nothing.
	failing(lab.Hook(), "ls -l /proc/[0-9]*/exe >"+reserved+" 2>/dev/null")
	if text := readFile(t, reserved); !strings.Contains(text, lab.Hook()) {
		t.Errorf("no process of the program held device numbers at %s:\n%s", stage, text)
	}
	t.Logf("the last process of the program ended after %s", lab.WaitNoneRunning(t, helperLimit))
	s.KillRemains(t)
	lab.WaitNumberFree(t, free+criusOwn, helperLimit)

	r := restoreWithHook(t, s, lab.RestoreOptions{})
	checkPreserved(t, r)
	r.CheckAnswers(t, lab.Accesses)
}

// TestTwoRestoresAtOnce restores two containers at the same time, with
// different old device numbers, and with the same.
func TestTwoRestoresAtOnce(t *testing.T) {
	requireHook(t)
	one, two := lab.Start(t, lab.Options{}), lab.Start(t, lab.Options{})
	one.Populate(t)
	two.Populate(t)
	different := []*snapshot{{Checkpoint: one.Checkpoint(t)}, {Checkpoint: two.Checkpoint(t)}}
	three := lab.Start(t, lab.Options{})
	three.Populate(t)
	same := []*snapshot{{Checkpoint: three.Checkpoint(t)}, nil}
	four := lab.Start(t, lab.Options{})
	four.Populate(t)
	same[1] = &snapshot{Checkpoint: four.Checkpoint(t)}

	t.Run("different numbers", func(t *testing.T) {
		for _, r := range restoreTogether(t, different) {
			checkPreserved(t, r)
		}
	})
	t.Run("same numbers", func(t *testing.T) {
		// Only one of them can get each number.
		restored := restoreTogether(t, same)
		owner := make(map[int]string)
		for _, r := range restored {
			for path, m := range lab.Autofs(t, r.PID) {
				if other := owner[m.Minor]; other != "" {
					t.Errorf("0:%d is %s of container %s, and %s", m.Minor, path, r.ID, other)
				}
				owner[m.Minor] = path + " of container " + r.ID
			}
		}
	})
}

// restoreTogether restores containers at the same time. Each must work.
func restoreTogether(t *testing.T, list []*snapshot) []*lab.Restored {
	t.Helper()
	lab.InstallActionScript(t, lab.Hook())
	restored := make([]*lab.Restored, len(list))
	errs := make([]error, len(list))
	var all sync.WaitGroup
	for i, s := range list {
		all.Go(func() { restored[i], errs[i] = s.TryRestore(t, lab.RestoreOptions{}) })
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range restored {
		report := r.ReadReport(t)
		checkReport(t, report, r)
		outcomes := make(map[string]int)
		for _, m := range report.Mounts {
			outcomes[m.Outcome]++
		}
		t.Logf("container %s, restored in %s: %v", r.ID, r.Took, outcomes)
		r.CheckAnswers(t, lab.Accesses)
		checkNoWaiters(t, r.Container)
	}
	lab.WaitNoneRunning(t, helperLimit)
	return restored
}
