package e2e

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestTenCycles checkpoints and restores the same container ten times, each time the
// restored one.
func TestTenCycles(t *testing.T) {
	requireHook(t)
	lab.InstallActionScript(t, lab.Hook())
	nodeMounts, free := nodeMountTable(t), lab.FreeNumber(t)
	c := lab.Start(t, lab.Options{})
	c.Populate(t)
	units := c.Units(t)
	forest, files := withoutFD(autofsOptions(c.Forest(t))), []string(nil)
	var repaired []string
	for cycle := range 10 {
		r := c.Checkpoint(t).Restore(t, lab.RestoreOptions{})
		for _, change := range changedUnits(units, r.Settle(t)) {
			t.Errorf("cycle %d: a unit has changed: %s", cycle, change)
		}
		checkPreserved(t, r)
		now := r.Forest(t)
		for _, change := range lab.Changes(forest, withoutFD(autofsOptions(now))) {
			t.Errorf("cycle %d: mounts: %s", cycle, change)
		}
		if cycle == 0 { // CRIU itself changes some mounts in the first restore
			repaired, files = now.DescribePropagation(), stableFiles(t, r)
		}
		for _, change := range lab.Changes(repaired, now.DescribePropagation()) {
			t.Errorf("cycle %d: mounts, compared with the first restore: %s", cycle, change)
		}
		for _, change := range filesLeft(t, r, files) {
			t.Errorf("cycle %d: open files, compared with the first restore: %s", cycle, change)
		}
		checkNoWaiters(t, r.Container)
		c = r.Container
		if t.Failed() {
			break
		}
	}
	c.CheckAnswers(t, lab.Accesses)
	checkUncovered(t, c)
	id := c.ID
	c.Kill(t)

	lab.WaitNoneRunning(t, 0)
	if now := nodeMountTable(t); now != nodeMounts {
		t.Errorf("the node's mounts are now\n%s\nbefore\n%s", now, nodeMounts)
	}
	lab.WaitNumberFree(t, free, 20*time.Second)
	// The next restore sweeps the handover of the last one.
	next := checkpoint(t).Restore(t, lab.RestoreOptions{})
	for _, file := range lab.RunFiles(t) {
		t.Logf("left in the run directory: %s", file)
		report := strings.HasPrefix(file, "reports/")
		if !report && strings.Contains(file, "locks/") || strings.Contains(file, id) && !report {
			t.Errorf("left in the run directory: %s", file)
		}
	}
	// Temporary files of killed runs, as in TestCrash, are swept a minute later.
	left := slices.DeleteFunc(lab.RunFiles(t), func(file string) bool { return strings.HasSuffix(file, ".tmp") })
	if handovers := countPrefix(left, "restores/"); handovers > 1 {
		t.Errorf("%d handovers are left, want at most that of the last restore", handovers)
	}
	next.Kill(t)
}

// withoutFD removes the descriptor of the pipe's write end in the mounting process:
// systemd has closed it.
func withoutFD(lines []string) []string {
	fd := regexp.MustCompile(`,fd=\d+`)
	for i := range lines {
		lines[i] = fd.ReplaceAllString(lines[i], "")
	}
	return lines
}

// nodeMountTable is the mount table of the tests themselves.
func nodeMountTable(t *testing.T) string {
	t.Helper()
	var lines []string
	for _, m := range lab.Mounts(t, 1) {
		lines = append(lines, strings.Join([]string{m.Mountpoint, m.FSType, m.Options, m.Optional}, " "))
	}
	return strings.Join(lines, "\n")
}

// stableFiles returns the open files when those of PID 1 have not changed for a second:
// the test's own systemctl connections have ended.
func stableFiles(t *testing.T, r *lab.Restored) []string {
	t.Helper()
	files := r.Files(t)
	for since := time.Now(); time.Since(since) < time.Second; time.Sleep(50 * time.Millisecond) {
		now := r.Files(t)
		if len(lab.Changes(systemdOnly(files), systemdOnly(now))) > 0 {
			since = time.Now()
		}
		files = now
	}
	return files
}

// filesLeft compares the open files of PID 1 with former ones, when the test's own
// systemctl connections have ended.
func filesLeft(t *testing.T, r *lab.Restored, former []string) []string {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		changes := lab.Changes(systemdOnly(former), systemdOnly(r.Files(t)))
		if len(changes) == 0 || time.Now().After(deadline) {
			return changes
		}
	}
}

// systemdOnly returns the open files of PID 1.
func systemdOnly(files []string) []string {
	var own []string
	for _, line := range files {
		if strings.HasPrefix(line, "process 1: ") {
			own = append(own, line)
		}
	}
	return own
}

func countPrefix(list []string, prefix string) int {
	n := 0
	for _, s := range list {
		if strings.HasPrefix(s, prefix) {
			n++
		}
	}
	return n
}
