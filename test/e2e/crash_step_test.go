package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// step restores a container, kills the run, lets the next run recover, and checks the
// container.
func (c *crashWalk) step(t *testing.T, k *lab.Killer) []string {
	c.walked++
	s := c.s
	free := lab.FreeNumber(t)
	captured, capture := "", ""
	if c.before == nil {
		captured = lab.Scratch(t, fmt.Sprintf("captured-%d", time.Now().UnixNano()))
		capture = lab.CaptureScript("post-restore", captured)
	}
	c.install(t, k, capture)
	var numbers *lab.Numbers
	options := lab.RestoreOptions{Before: func() {
		if c.occupied {
			numbers = lab.HoldNumbersUpTo(t, s.highest)
		}
	}}
	r, err := s.TryRestore(t, options)
	var ended <-chan []lab.Touch
	var waiting []lab.Access
	switch {
	case c.stage == "pre-restore" && err != nil:
		// CRIU takes the status of a script that was killed there as a refusal of the
		// restore.
		s.KillRemains(t)
		lab.InstallWrappedScript(t, lab.Hook(), capture)
		r = s.Restore(t, options)
	case err != nil:
		t.Fatal(err)
	case c.stage == "":
		if c.waiting != nil {
			waiting = c.waiting()
			ended = startAccesses(t, r, waiting)
		}
		c.runByHand(t, r, k)
	}
	if c.before == nil {
		c.before = lab.ReadCapture(t, captured)
	}
	calls, killed := k.Wait(t)
	if err != nil && !killed {
		t.Errorf("CRIU failed, although nothing was killed: %v", err)
	}
	if killed {
		c.killed++
		t.Logf("killed at call %d: %s", len(calls), strings.Join(calls[max(0, len(calls)-6):], ", "))
		c.recover(t, r)
	}
	if ended != nil {
		c.checkReleased(t, waiting, <-ended, killed)
	}
	lab.WaitNoneRunning(t, helperLimit) // one in the container's pid namespace has mounts of the node
	c.check(t, r)
	r.Kill(t)
	if numbers != nil {
		numbers.Release()
	}
	lab.WaitNoneRunning(t, helperLimit)
	lab.WaitNumberFree(t, free, 20*time.Second)
	return calls
}

// install installs the action script: the shell commands capture, and the program at its
// stage, which the killer kills.
func (c *crashWalk) install(t *testing.T, k *lab.Killer, capture string) {
	t.Helper()
	shell := capture + c.s.GroupsShell() // for stages at which the program does not run, or is killed
	if c.only {
		shell += "[ \"$CRTOOLS_SCRIPT_ACTION\" = " + c.stage + " ] || exit 0\n"
	}
	hook := "/bin/true"
	if c.stage != "" {
		hook = lab.Hook()
		shell += "if [ \"$CRTOOLS_SCRIPT_ACTION\" = " + c.stage + " ]; then\n" + k.Shell() + "fi\n"
	}
	lab.InstallWrappedScript(t, hook, shell)
}

// recover makes the next run, and counts what it did.
func (c *crashWalk) recover(t *testing.T, r *lab.Restored) {
	t.Helper()
	next := lab.RunHook(t, nil, nil, "repair", strconv.Itoa(r.PID), "--json")
	report := lab.ParseReport(t, next.Stdout)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the next run: exit status %d\n%s%s\nCRIU's log:\n%s", next.Status, next.Stderr, outcomes(report), hookLines(r.Log))
		}
	})
	if next.Status != 0 {
		t.Errorf("the next run: exit status %d, want 0", next.Status)
	}
	switch {
	case strings.Contains(next.Stderr+r.Log, "undone"):
		c.undone++
	case report.Outcome == "nothing-to-do" && c.stage == "":
		c.nothing++
	default:
		c.finished++
	}
}

// runByHand runs the program that is killed.
func (c crashCase) runByHand(t *testing.T, r *lab.Restored, k *lab.Killer) {
	t.Helper()
	script := k.Shell() + "exec " + lab.Hook() + " repair " + strconv.Itoa(r.PID) + " --strategy " + c.strategy
	// Its parent is not this process, which is its tracer: all threads of a parent get
	// the stops of a traced child.
	cmd := exec.Command("sh", "-c", `sh -c "$1"; exit $?`, "parent", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.WaitDelay = time.Second
	stop := time.AfterFunc(30*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	defer stop.Stop()
	err := cmd.Run() // its exit status is that of a killed run
	t.Logf("the run: %v\n%s", err, output.String())
}

// checkReleased checks the results of accesses that were waiting before the run.
func (c crashCase) checkReleased(t *testing.T, waiting []lab.Access, touches []lab.Touch, killed bool) {
	t.Helper()
	for i, o := range touches {
		switch {
		case o.Hung:
			t.Errorf("%s: %s: it still waits after the next run", waiting[i].Path, o)
		case !waiting[i].Answers(o) && !killed:
			t.Errorf("%s: %s; want %q", waiting[i].Path, o, waiting[i].Content)
		case !waiting[i].Answers(o):
			t.Logf("%s: the waiter got an error: %s", waiting[i].Path, o) // from the guard
		}
	}
}

// check checks for remains of the killed run and the next one.
func (c *crashWalk) check(t *testing.T, r *lab.Restored) {
	t.Helper()
	for _, change := range lab.Changes(c.lines(c.before), c.lines(r.Forest(t))) {
		t.Errorf("mounts: %s", change)
	}
	r.CheckUntouched(t)
	// After some five mounts systemd processes no mount event for a second (the rate
	// limit of src/core/mount.c). So in the many steps of a whole walk only one automount
	// is accessed in turn, and all in every sixteenth step.
	accesses, uncover := lab.Accesses, c.walked%3 == 0
	if c.all {
		if uncover = c.walked%16 == 0; !uncover {
			first := c.walked % len(accesses)
			accesses = accesses[first : first+1]
		}
	}
	r.CheckAnswers(t, accesses)
	checkNoWaiters(t, r.Container)
	if uncover {
		checkUncovered(t, r.Container)
	}
	locks := 0
	for _, file := range lab.RunFiles(t) {
		dir, name, _ := strings.Cut(file, "/")
		switch {
		case file == "locks/device-numbers": // it is locked again at the next restore
		case dir == "locks":
			locks++ // that of a CRIU that has ended is swept at the next restore
		case dir == "places": // that of a CRIU that has ended is swept at the next restore
		case strings.HasSuffix(name, ".tmp"): // swept when it is a minute old
		case dir == "containers" && hasEnded(name): // another test's; swept at the next restore
		case dir == "covers" || !strings.HasSuffix(name, ".json"):
			t.Errorf("left in the run directory: %s", file)
		}
	}
	if locks > 1 {
		t.Errorf("%d lock files are left", locks)
	}
}

// hasEnded reports whether the container of a journal entry has ended: the entry is named
// after its first process.
func hasEnded(entry string) bool {
	pid, _, _ := strings.Cut(entry, "-")
	_, err := os.Stat("/proc/" + pid)
	return err != nil
}

// lines describes the mounts that must not change.
func (c crashCase) lines(f lab.Forest) []string {
	var lines []string
	for _, line := range f.DescribePropagation() {
		switch {
		case strings.Contains(line, "\"/tmp/auto"): // a new automount daemon tests mounting there
		case c.waiting != nil && !strings.Contains(line, " autofs "): // a released waiter has triggered a mount
		default:
			lines = append(lines, line)
		}
	}
	return lines
}
