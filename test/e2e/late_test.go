package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestLateRepair restores without the program and repairs by hand, without images, with
// two waiters: systemd's state shows which mounts are stale, and no unit changes.
func TestLateRepair(t *testing.T) {
	requireHook(t)
	for _, suite := range systemdVersions {
		t.Run(suite, func(t *testing.T) {
			s := sharedCheckpoint(t, lab.Options{Systemd: suite, MountRateLimit: true})
			lateRepair(t, s, systemdAccesses()[0], automountAccesses()[0])
		})
	}
}

// TestLateRepairNested is the same where other mount namespaces show the mounts of
// automount, too.
func TestLateRepairNested(t *testing.T) {
	requireHook(t)
	lateRepair(t, take(t, lab.Options{Files: nestedFiles()}), systemdAccesses()[0])
}

func lateRepair(t *testing.T, s *snapshot, waiting ...lab.Access) {
	units := s.units
	r := restoreStale(t, s)
	ended := startAccesses(t, r, waiting)
	report := repairByHand(t, r)
	t.Logf("repaired in %.0f ms", report.DurationMS)
	checkAnswered(t, waiting, <-ended)
	checkCure(t, report, "reexecuted")
	checkReport(t, report, r)
	for _, m := range report.Mounts {
		if m.Master.Kind == "systemd" && (m.DeviceBefore == "" || m.DeviceBefore == m.DeviceNow) {
			t.Errorf("%s: device %q, now %s", m.Path, m.DeviceBefore, m.DeviceNow)
		}
	}
	checkUnitsButMounted(t, s, r, waiting)
	for _, change := range lab.Changes(s.covers, nestedCovers(t, r.Container, units)) {
		if !slices.ContainsFunc(waiting, func(a lab.Access) bool { return strings.Contains(change, filepath.Dir(a.Path)) }) {
			t.Errorf("covers: %s", change)
		}
	}
	checkSameSuperblocks(t, r, units)
	r.CheckAnswers(t, lab.Accesses)
	checkNoWaiters(t, r.Container)
	checkUncovered(t, r.Container)
	r.CheckUntouched(t)
}

// checkSameSuperblocks checks that every automount of the nested namespaces has the
// superblock of the main one.
func checkSameSuperblocks(t *testing.T, r *lab.Restored, units map[string]lab.Unit) {
	t.Helper()
	main := lab.Autofs(t, r.PID)
	for _, name := range nestedServices {
		for path, own := range lab.Autofs(t, r.HostPID(t, units[name+".service"].MainPID)) {
			if m := main[path]; m == nil || m.Minor != own.Minor {
				t.Errorf("%s.service: %s is device 0:%d, in the main namespace %+v", name, path, own.Minor, m)
			}
		}
	}
}

// checkUnitsButMounted reports every unit that has changed since the checkpoint, except
// the mounts that the waiters triggered.
func checkUnitsButMounted(t *testing.T, s *snapshot, r *lab.Restored, waiting []lab.Access) {
	t.Helper()
	for _, change := range changedUnits(s.units, r.Settle(t)) {
		unit, _, _ := strings.Cut(change, ": ")
		mounted := slices.ContainsFunc(waiting, func(a lab.Access) bool { return unit == lab.UnitName(filepath.Dir(a.Path), "mount") })
		automount := mounted || slices.ContainsFunc(waiting, func(a lab.Access) bool {
			return unit == lab.UnitName(filepath.Dir(a.Path), "automount") && strings.Contains(change, "SubState:running")
		})
		if !automount {
			t.Errorf("a unit has changed by the repair: %s", change)
		}
	}
}

// TestOtherClock has a systemd that remembers an activation of its units one hour before
// or after the time of the node's clock.
func TestOtherClock(t *testing.T) {
	requireHook(t)
	for name, shift := range map[string]time.Duration{"ahead": time.Hour, "behind": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			c := lab.Start(t, lab.Options{})
			c.Populate(t)
			shiftActivation(t, c, shift)
			s := checkpointOf(t, c)
			r := restoreStale(t, s)
			report := repairByHand(t, r)
			checkCure(t, report, "reexecuted")
			checkUnitsButMounted(t, s, r, nil)
			r.CheckAnswers(t, lab.Accesses)
			checkNoWaiters(t, r.Container)
			r.Kill(t)
		})
	}
}

// shiftActivation makes a systemd of version 252 remember another time of the activation
// of its automounts: when it is about to execute itself, lines are added to its state.
func shiftActivation(t *testing.T, c *lab.Container, shift time.Duration) {
	t.Helper()
	cmd := exec.Command("strace", "-qq", "-o", "/dev/null", "-e", "trace=execve", "-e", "inject=execve:delay_enter=1000000", "-p", strconv.Itoa(c.PID))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Signal(syscall.SIGTERM); _ = cmd.Wait() }()
	waitUntil(t, "strace is attached", func() bool { return tracer(t, c.PID) == strconv.Itoa(cmd.Process.Pid) })
	if err := syscall.Kill(c.PID, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var state string
	waitUntil(t, "systemd has written its state", func() bool {
		links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", c.PID))
		for _, link := range links {
			if target, err := os.Readlink(link); err == nil && strings.Contains(target, "memfd:systemd-state") {
				text, err := os.ReadFile(link)
				state = link
				return err == nil && bytes.HasSuffix(text, []byte("\n\n"))
			}
		}
		return false
	})
	f, err := os.OpenFile(state, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	at := time.Now().Add(shift).UnixMicro()
	for path := range lab.Autofs(t, c.PID) {
		if _, err := fmt.Fprintf(f, "%s\nactive-enter-timestamp=%d %[2]d\n\n", lab.UnitName(path, "automount"), at); err != nil {
			t.Fatal(err)
		}
	}
	waitUntil(t, "systemd runs on", func() bool {
		return strings.TrimSpace(c.Try(t, lab.AnswerLimit, "systemctl", "is-system-running").Output) == "running"
	})
	text := c.Run(t, "systemctl", "show", "--timestamp=unix", "--property=ActiveEnterTimestamp", lab.UnitName(lab.Idle, "automount"))
	if want := fmt.Sprintf("ActiveEnterTimestamp=@%d\n", at/1_000_000); text != want {
		t.Fatalf("%q, want %q: the test proves nothing", text, want)
	}
}

// TestRecordsLost removes all files of the journal between Preserve and Repair, and
// before a second repair: systemd's state decides, and no unit is restarted.
func TestRecordsLost(t *testing.T) {
	requireHook(t)
	s := checkpoint(t)
	const forget = "rm -rf /run/autofs-restore-hook/restores /run/autofs-restore-hook/containers\n"
	lab.InstallWrappedScript(t, lab.Hook(), "if [ \"$CRTOOLS_SCRIPT_ACTION\" = post-resume ]; then "+forget+"fi\n")
	r := s.Restore(t, lab.RestoreOptions{})
	for i := range 3 {
		report := r.ReadReport(t)
		for _, m := range report.Mounts {
			if m.Master.Kind == "systemd" && (m.Outcome != "healthy" || i < 2 && !strings.Contains(m.Reason, "nothing had to be corrected") && !strings.HasPrefix(m.Reason, "it shows the mount")) {
				t.Errorf("run %d: %s: %s (%s)", i, m.Path, m.Outcome, m.Reason)
			}
		}
		for _, change := range changedUnits(s.units, r.Settle(t)) {
			t.Errorf("run %d: a unit has changed: %s", i, change)
		}
		if i == 0 {
			if out, err := exec.Command("sh", "-c", forget).CombinedOutput(); err != nil {
				t.Fatal(err, string(out))
			}
		}
		if i < 2 {
			repairByHand(t, r) // now it remembers
		}
	}
	r.CheckAnswers(t, lab.Accesses)
	checkNoWaiters(t, r.Container)
	checkUncovered(t, r.Container)
	r.CheckUntouched(t)
}

// TestNeverRestored: a systemd that was started here is re-executed only on request, also
// if it has re-executed itself before; then there is nothing to correct.
func TestNeverRestored(t *testing.T) {
	requireHook(t)
	c := lab.Start(t, lab.Options{})
	units := c.Settle(t)
	listens := func() string { return c.Run(t, "stat", "-c", "%i", "/run/systemd/private") }
	check := func(what, reason string, options ...string) {
		t.Helper()
		report := repairByHand(t, &lab.Restored{Container: c}, options...)
		if report.Outcome != "nothing-to-do" && len(options) == 0 { // on request automount may reload
			t.Errorf("%s: outcome %s", what, report.Outcome)
		}
		for _, m := range report.Mounts {
			if m.Master.Kind == "systemd" && (m.Outcome != "healthy" || !strings.Contains(m.Reason, reason) && !strings.HasPrefix(m.Reason, "it shows the mount")) {
				t.Errorf("%s: %s: %s (%s), want it because %q", what, m.Path, m.Outcome, m.Reason, reason)
			}
		}
	}
	before := listens()
	check("fresh", "started here")
	c.Run(t, "systemctl", "daemon-reexec")
	waitUntil(t, "systemd has re-executed itself", func() bool {
		o := c.Try(t, lab.AnswerLimit, "stat", "-c", "%i", "/run/systemd/private")
		return !o.Failed && o.Output != before
	})
	before = listens()
	check("re-executed by hand", "started here")
	if now := listens(); now != before {
		t.Error("systemd was made to re-execute itself")
	}
	check("on demand", "nothing had to be corrected", "--strategy", "reexec")
	if now := listens(); now == before {
		t.Error("systemd did not re-execute itself")
	}
	for _, change := range changedUnits(units, c.Settle(t)) {
		t.Errorf("a unit has changed: %s", change)
	}
}

// TestReexecutedBeforeRepair makes a restored systemd re-execute itself, as the upgrade
// of its package does: it keeps the wrong numbers, and looks like one that was started
// here.
func TestReexecutedBeforeRepair(t *testing.T) {
	requireHook(t)
	s := checkpoint(t)
	r := restoreStale(t, s)
	r.Run(t, "systemctl", "daemon-reexec")
	report := repairByHand(t, r)
	checkCure(t, report, "reexecuted")
	checkUnitsButMounted(t, s, r, nil)
	r.CheckAnswers(t, lab.Accesses)
	checkNoWaiters(t, r.Container)
}

// TestCheckpointedWhileBroken checkpoints a container that was restored without the
// program: its systemd remembers numbers that the images do not have, but its state has.
func TestCheckpointedWhileBroken(t *testing.T) {
	requireHook(t)
	s := checkpoint(t)
	broken := checkpointOf(t, restoreStale(t, s).Container)
	r := restoreWithHook(t, broken, lab.RestoreOptions{})
	waiting := systemdAccesses()[:1]
	ended := startAccesses(t, r, waiting)
	report := repairByHand(t, r) // with a waiter systemd is asked, even about preserved mounts
	checkAnswered(t, waiting, <-ended)
	for _, m := range report.Mounts {
		if m.Master.Kind == "systemd" && m.Outcome != "reexecuted" {
			t.Errorf("%s: %s (%s)", m.Path, m.Outcome, m.Reason)
		}
	}
	r.CheckAnswers(t, lab.Accesses)
	checkNoWaiters(t, r.Container)
}
