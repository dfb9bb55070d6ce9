package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// refusals are containers whose systemd cannot be re-executed, with a part of the reason.
var refusals = map[string]struct {
	// prepare brings the container into that state, and returns a function that ends it.
	prepare func(t *testing.T, r *lab.Restored) (end func())
	reason  string
	own     bool // not the shared checkpoint: files of the container change
}{
	"traced by another process": {
		prepare: func(t *testing.T, r *lab.Restored) func() {
			cmd := exec.Command("strace", "-o", "/dev/null", "-p", strconv.Itoa(r.PID))
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			stop := func() { _ = cmd.Process.Signal(syscall.SIGTERM); _ = cmd.Wait() }
			t.Cleanup(stop)
			waitUntil(t, "strace is attached", func() bool { return tracer(t, r.PID) == strconv.Itoa(cmd.Process.Pid) })
			return func() {
				if now := tracer(t, r.PID); now != strconv.Itoa(cmd.Process.Pid) {
					t.Errorf("PID 1 is traced by %s, want %d: strace has detached", now, cmd.Process.Pid)
				}
				stop()
			}
		},
		reason: "traced",
	},
	"its program replaced": {
		prepare: func(t *testing.T, r *lab.Restored) func() {
			r.Run(t, "sh", "-ec", "cd /usr/lib/systemd; cp -p systemd new; mv new systemd")
			return func() {}
		},
		reason: "replaced since it was started",
		own:    true,
	},
	"its program moved away": {
		prepare: func(t *testing.T, r *lab.Restored) func() {
			r.Run(t, "mv", "/usr/lib/systemd/systemd", "/usr/lib/systemd/systemd.old")
			return func() { r.Run(t, "mv", "/usr/lib/systemd/systemd.old", "/usr/lib/systemd/systemd") }
		},
		reason: "replaced since it was started",
		own:    true,
	},
	"no space in /run": {
		// systemd needs 16 MiB of free space before it re-executes itself.
		prepare: func(t *testing.T, r *lab.Restored) func() {
			r.Run(t, "mount", "-o", "remount,size=8m", "/run")
			return func() { r.Run(t, "mount", "-o", "remount,size=64m", "/run") }
		},
		reason: "bytes free below its /run/systemd",
	},
}

// TestReexecutedRefused has a systemd that cannot re-execute itself: its numbers are
// unknown, and nothing changes, until a restart of its units is requested.
func TestReexecutedRefused(t *testing.T) {
	requireHook(t)
	for name, refusal := range refusals {
		t.Run(name, func(t *testing.T) {
			var s *snapshot
			if refusal.own {
				s = take(t, lab.Options{})
			} else {
				s = checkpoint(t)
			}
			r := restoreStale(t, s)
			lab.HoldNumbersUpTo(t, s.highest)
			end := refusal.prepare(t, r)
			mounts, units := r.MountTable(t), r.Settle(t)

			result := lab.RunHook(t, nil, nil, "repair", strconv.Itoa(r.PID), "--json", "--strategy", "reexec")
			if result.Status != 3 && result.Status != 1 {
				t.Errorf("repair --strategy reexec: exit status %d, want 1 or 3: %s", result.Status, result.Stderr)
			}
			report := lab.ParseReport(t, result.Stdout)
			checkReasons(t, report, "unrepaired", refusal.reason)
			if report.DurationMS > 3000 { // it waits 4 s for a systemd that does not re-execute itself
				t.Errorf("the refusal took %.0f ms", report.DurationMS)
			}
			for _, change := range changedUnits(units, r.Settle(t)) {
				t.Errorf("a unit has changed although nothing was done: %s", change)
			}
			if now := withoutDaemon(r.MountTable(t)); now != withoutDaemon(mounts) {
				t.Errorf("mounts:\n%s\nbefore:\n%s", now, mounts)
			}

			// Outside of a restore there is no evidence that they are stale.
			report = lab.ParseReport(t, lab.RunHook(t, nil, nil, "repair", strconv.Itoa(r.PID), "--json").Stdout)
			checkReasons(t, report, "unrepaired", refusal.reason)
			checkReasons(t, report, "unrepaired", fmt.Sprintf("repair %d --strategy restart", r.PID))
			report = repairByHand(t, r, "--strategy", "restart")
			t.Logf("the repair took %.0f ms", report.DurationMS)
			checkCure(t, report, "restarted")
			end()
			r.CheckUntouched(t)
			r.CheckAnswers(t, lab.Accesses)
			checkNoWaiters(t, r.Container)
			checkUncovered(t, r.Container)
			lab.WaitNoneRunning(t, 0)
			r.Kill(t) // the next one may have the same name
		})
	}
}

// TestReexecutedReplaced has a systemd whose program file was replaced, and an
// administrator who allows it to execute the new one.
func TestReexecutedReplaced(t *testing.T) {
	requireHook(t)
	s := take(t, lab.Options{}) // not shared: its files change
	r := restoreStale(t, s)
	r.Run(t, "sh", "-ec", "cd /usr/lib/systemd; cp -p systemd new; mv new systemd")
	const config = "/etc/autofs-restore-hook.conf"
	t.Cleanup(func() { _ = os.Remove(config) })
	program := fmt.Sprintf("/proc/%d/exe", r.PID)
	old, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	for _, allowed := range []bool{false, true} {
		if err := os.WriteFile(config, fmt.Appendf(nil, "reexecute-replaced = %t\n", allowed), 0o600); err != nil {
			t.Fatal(err)
		}
		result := lab.RunHook(t, nil, nil, "repair", strconv.Itoa(r.PID), "--json", "--strategy", "reexec")
		report := lab.ParseReport(t, result.Stdout)
		now, err := os.Stat(program)
		if err != nil {
			t.Fatal(err)
		}
		if replaced := !os.SameFile(old, now); replaced != allowed {
			t.Errorf("allowed: %t; systemd runs another file: %t", allowed, replaced)
		}
		if allowed {
			checkCure(t, report, "reexecuted")
		} else {
			checkReasons(t, report, "unrepaired", "would load another version")
		}
	}
	r.CheckAnswers(t, lab.Accesses)
	checkNoWaiters(t, r.Container)
	checkUncovered(t, r.Container)
	r.CheckUntouched(t)
	lab.WaitNoneRunning(t, 0)
}

// checkReasons checks the outcome of the mounts of systemd, and the reason of those in
// its own namespace.
func checkReasons(t *testing.T, report lab.Report, outcome, reason string) {
	t.Helper()
	explained := make(map[string]bool)
	for _, m := range report.Mounts {
		if m.Master.Kind != "systemd" {
			continue
		}
		if m.Outcome != outcome {
			t.Errorf("report: %s: %s (%s), want %s", m.Path, m.Outcome, m.Reason, outcome)
		}
		if strings.Contains(m.Reason, reason) {
			explained[m.Path] = true
		}
	}
	for _, path := range []string{lab.Idle, lab.Blank, lab.Binfmt, lab.Covered, lab.Stacked} {
		if !explained[path] {
			t.Errorf("report: %s: want the reason %q:\n%s", path, reason, outcomes(report))
		}
	}
}

// withoutDaemon removes the mounts of the automount daemon from a mount table: a reload
// replaces them.
func withoutDaemon(table string) string {
	var out []string
	for line := range strings.Lines(table) {
		if !strings.Contains(line, " - autofs /etc/auto.") && !strings.Contains(line, " - autofs autofs-restore-hook ") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}

func tracer(t *testing.T, pid int) string {
	t.Helper()
	for line := range strings.Lines(readFile(t, fmt.Sprintf("/proc/%d/status", pid))) {
		if value, ok := strings.CutPrefix(line, "TracerPid:"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func waitUntil(t *testing.T, what string, condition func() bool) {
	t.Helper()
	lab.Eventually(t, lab.AnswerLimit, what, condition)
}

// impostor is a PID 1 with the name systemd that serves an automount without answering,
// and logs every signal.
const impostor = `for s in HUP INT TERM USR1 USR2 PWR; do trap "echo $s >>/signals" $s; done
` + impostorMount + `while :; do sleep 1000; done
`

// impostorMount mounts an autofs whose pipe descriptor 6 reads.
const impostorMount = `mkdir -p /mnt/fake
exec 7> >(:)
exec 6</proc/self/fd/7
mount -t autofs -o fd=7,pgrp=1,minproto=5,maxproto=5,direct systemd-1 /mnt/fake
exec 7>&-
echo >/ready
`

// TestReexecutedImpostor has a PID 1 that is no systemd but has its name. It is neither
// signalled nor traced.
func TestReexecutedImpostor(t *testing.T) {
	requireHook(t)
	c := lab.Start(t, lab.Options{
		Plain: true,
		Args:  []string{"/bin/bash", "-c", "cp /bin/bash /usr/local/systemd; exec /usr/local/systemd /impostor"},
		Files: map[string]string{"/impostor": impostor},
	})
	root := filepath.Join(c.Bundle, "rootfs")
	waitUntil(t, "the container has mounted", func() bool {
		_, err := os.Stat(filepath.Join(root, "ready"))
		return err == nil
	})
	s := &snapshot{Checkpoint: c.Checkpoint(t)}
	r := restoreStale(t, s)
	for _, strategy := range []string{"reexec", "restart"} {
		result := lab.RunHook(t, nil, nil, "repair", strconv.Itoa(r.PID), "--json", "--strategy", strategy)
		report := lab.ParseReport(t, result.Stdout)
		if result.Status != 1 || len(report.Mounts) != 1 || report.Mounts[0].Outcome != "unrepaired" || report.Mounts[0].Reason == "" {
			t.Errorf("repair --strategy %s: exit status %d, want 1\n%s%s", strategy, result.Status, result.Stderr, outcomes(report))
		}
		t.Log(outcomes(report))
	}
	r.CheckUntouched(t)
	if signals, err := os.ReadFile(filepath.Join(root, "signals")); err == nil {
		t.Errorf("PID 1 was sent signals:\n%s", signals)
	}
}
