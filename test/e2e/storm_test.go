package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// places is the folder of restores in progress.
const places = "/run/autofs-restore-hook/places"

// TestClonesAtOnce restores clones of one checkpoint at the same time. One gets the
// device numbers, and all are served.
func TestClonesAtOnce(t *testing.T) {
	requireHook(t)
	lab.InstallActionScript(t, lab.Hook())
	access := lab.Accesses[0]
	c := lab.Start(t, lab.Options{Roles: true, Files: lab.StopwatchFiles(access)})
	c.StartStopwatch(t)
	c.Settle(t)
	checkpoint := c.Checkpoint(t)
	checkpoint.ReleaseStopwatches(t, true)
	restored, err := lab.RestoreAll(t, checkpoint.Clones(t, 3*runtime.NumCPU()))
	defer lab.KillAll(t, restored)
	if err != nil {
		t.Error(err)
	}
	outcomes := map[string]int{}
	for _, r := range restored {
		for _, m := range r.ReadReport(t).Mounts {
			outcome := m.Outcome
			if outcome == "restarted" && strings.Contains(m.Reason, "did not re-execute itself within") {
				outcome = "restarted, too slow" // the machine is slow, as under other load
			}
			outcomes[outcome]++
		}
		longest, err := r.LongestRead(2 * lab.TouchLimit)
		if err != nil {
			t.Error(err)
		}
		t.Logf("container %s, restored in %s: the longest read took %s", r.ID, r.Took, longest)
	}
	t.Logf("mounts: %v", outcomes)
	known := []string{"healthy", "preserved", "reexecuted", "reloaded", "restarted, too slow"}
	for outcome, count := range outcomes {
		if !slices.Contains(known, outcome) {
			t.Errorf("%d mounts: %s", count, outcome)
		}
	}
	if outcomes["preserved"] == 0 || outcomes["reexecuted"] == 0 {
		t.Errorf("no clone got the device numbers, or all did: %v", outcomes)
	}
	if left, err := os.ReadDir(places); err != nil || len(left) > 0 {
		t.Errorf("restores in progress after the last one: %v, %v", left, err)
	}
}

// TestPlacesTaken restores while as many others as there are processors are in progress
// and do not end: it waits for them for 1 s, and then works.
func TestPlacesTaken(t *testing.T) {
	requireHook(t)
	s := checkpoint(t)
	if err := os.MkdirAll(places, 0o700); err != nil {
		t.Fatal(err)
	}
	var files []string
	for range runtime.NumCPU() {
		cmd := exec.Command("sleep", "60")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer cmd.Wait()
		defer cmd.Process.Kill()
		p, err := nsenter.Open(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		files = append(files, filepath.Join(places, p.Identity()))
	}
	begin := time.Now()
	r := restoreWithHook(t, s, lab.RestoreOptions{Before: func() {
		begin = time.Now()
		for _, path := range files {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.Remove(path) })
		}
	}})
	if took := time.Since(begin); took < 900*time.Millisecond || took > 2*lab.TouchLimit {
		t.Errorf("restored within %v, want a little more than 1 s", took)
	}
	checkReport(t, r.ReadReport(t), r)
	r.CheckAnswers(t, lab.Accesses)
}
