package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/systemd"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/owner"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// walk is a restored container that is brought back repeatedly to its state after the
// restore: its systemd remembers the numbers of the checkpoint, and the journal has no
// repair.
type walk struct {
	s       *snapshot
	r       *lab.Restored
	pid1    *nsenter.Process
	version int                   // systemd's
	now     []systemd.ServedMount // its mounts
	before  []systemd.ServedMount // the same with the numbers of the checkpoint
	units   map[string]lab.Unit
	files   []string

	steps, killed, old, corrected, finished int
}

// startWalk restores a container and repairs it once: then its automount daemon is a new
// one and stays.
func startWalk(t *testing.T, s *snapshot) *walk {
	t.Helper()
	w := &walk{s: s, r: restoreStale(t, s)}
	w.version = w.r.SystemdVersion(t)
	report := repairByHand(t, w.r, "--strategy", "reexec")
	checkCure(t, report, "reexecuted")
	seen := make(map[string]bool)
	mounts := lab.Autofs(t, w.r.PID)
	for _, m := range report.Mounts {
		if m.Outcome == "reexecuted" && m.Master.Kind == "systemd" && !seen[m.Path] {
			seen[m.Path] = true
			w.now = append(w.now, systemd.ServedMount{Path: m.Path, Pipe: pipeOf(t, mounts[m.Path]), Device: device(t, m.DeviceNow)})
			w.before = append(w.before, systemd.ServedMount{Path: m.Path, Pipe: pipeOf(t, mounts[m.Path]), Device: device(t, m.DeviceBefore)})
		}
	}
	var err error
	if w.pid1, err = nsenter.Open(w.r.PID); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.pid1.Close() })
	w.r.CheckAnswers(t, lab.Accesses)
	w.unmount(t)
	w.units, w.files = w.r.Settle(t), files(t, w.r)
	return w
}

// files returns the open files of the container's processes, without descriptor numbers:
// systemd's change when it executes itself.
func files(t *testing.T, r *lab.Restored) []string {
	t.Helper()
	var list []string
	for _, line := range r.Files(t) {
		process, rest, _ := strings.Cut(line, ": ")
		_, file, _ := strings.Cut(rest, " -> ")
		list = append(list, process+": "+file)
	}
	slices.Sort(list)
	return list
}

// device parses a device number of a report.
func device(t *testing.T, text string) uint64 {
	t.Helper()
	var major, minor uint32
	if _, err := fmt.Sscanf(text, "%d:%d", &major, &minor); err != nil {
		t.Fatalf("device %q: %v", text, err)
	}
	return unix.Mkdev(major, minor)
}

// pipeOf returns the inode number of the pipe of an autofs mount.
func pipeOf(t *testing.T, m *mountinfo.Info) uint64 {
	t.Helper()
	for word := range strings.SplitSeq(m.VFSOptions, ",") {
		if text, ok := strings.CutPrefix(word, "pipe_ino="); ok {
			pipe, err := strconv.ParseUint(text, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return pipe
		}
	}
	t.Fatalf("%s: no pipe in %q", m.Mountpoint, m.VFSOptions)
	return 0
}

// correct makes systemd remember numbers, without the program; with none it changes
// nothing. It returns the former numbers of its units.
func (w *walk) correct(t *testing.T, served []systemd.ServedMount) *systemd.StateEdit {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), lab.AnswerLimit)
	defer cancel()
	edit, err := systemd.Reexecute(ctx, owner.Of(w.pid1).Init(), systemd.ReexecuteOptions{Version: w.version, Served: served})
	if err != nil {
		t.Fatal(err)
	}
	return edit
}

// makeStale makes systemd remember the numbers of the checkpoint.
func (w *walk) makeStale(t *testing.T) {
	t.Helper()
	if edit := w.correct(t, w.before); countCorrected(edit) != len(w.before) {
		t.Fatalf("back to the old numbers: %+v", edit.Units)
	}
	entries, err := filepath.Glob("/run/autofs-restore-hook/containers/" + w.pid1.Identity() + "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range entries {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	checkRunsOn(t, w.r)
}

// isCorrected reports whether systemd has the correct numbers. It fails the test if
// systemd has some of both, or others.
func (w *walk) isCorrected(t *testing.T) bool {
	t.Helper()
	edit := w.correct(t, nil)
	checkRunsOn(t, w.r)
	old, fresh := remembered(edit, w.before), remembered(edit, w.now)
	if fresh != len(w.now) && old != len(w.before) {
		t.Errorf("neither all old numbers nor all new ones: %+v", edit.Units)
	}
	return fresh == len(w.now)
}

// remembered counts the mounts that systemd remembers with their number.
func remembered(edit *systemd.StateEdit, mounts []systemd.ServedMount) (count int) {
	for _, m := range mounts {
		for i := range edit.Units {
			if u := &edit.Units[i]; u.Pipe == m.Pipe && u.OldDevice == m.Device {
				count++
			}
		}
	}
	return count
}

func countCorrected(edit *systemd.StateEdit) (count int) {
	for i := range edit.Units {
		if edit.Units[i].Corrected() {
			count++
		}
	}
	return count
}

// unmount unmounts the file systems of accesses, and waits until systemd has seen that.
func (w *walk) unmount(t *testing.T) {
	t.Helper()
	w.r.Run(t, "umount", lab.Idle, lab.Blank, lab.Binfmt)
	w.r.Run(t, "systemctl", "reset-failed") // systemd's start limit: 5 in 10 s
	var units []string
	for _, path := range []string{lab.Idle, lab.Blank, lab.Binfmt} {
		units = append(units, lab.UnitName(path, "mount"))
	}
	waitUntil(t, "systemd has seen the unmounts", func() bool {
		o := w.r.Try(t, lab.AnswerLimit, append([]string{"systemctl", "is-active"}, units...)...)
		return !strings.Contains("\n"+o.Output, "\nactive") && !strings.Contains(o.Output, "deactivating")
	})
}

// kill kills the program when it is about to make a system call for the n-th time, and
// lets it run again: systemd keeps running, with all the old numbers or all the new ones,
// and the second run finishes the repair.
func (w *walk) kill(t *testing.T, call string, list ...int) {
	t.Helper()
	for _, n := range list {
		w.steps++
		done := t.Run(call+" "+strconv.Itoa(n), func(t *testing.T) {
			w.makeStale(t)
			if killAt(t, w.s, w.r, call, n) {
				w.killed++
			}
			checkRunsOn(t, w.r)
			if w.isCorrected(t) {
				w.corrected++
			} else {
				w.old++
			}
			// "healthy" if this run ended before that call.
			report := repairByHand(t, w.r)
			for _, m := range report.Mounts {
				if m.Master.Kind == "systemd" && m.Outcome != "reexecuted" && m.Outcome != "healthy" {
					t.Errorf("%s: %s (%s)", m.Path, m.Outcome, m.Reason)
				}
			}
			w.r.CheckAnswers(t, systemdAccesses())
			checkNoWaiters(t, w.r.Container)
			w.unmount(t)
		})
		if done {
			w.finished++
		}
	}
}

// finish checks for remains of all the killed runs.
func (w *walk) finish(t *testing.T) {
	t.Helper()
	for _, change := range changedUnits(w.units, w.r.Settle(t)) {
		// The accesses mounted these file systems each time.
		if !strings.Contains(change, ".mount: {ActiveState:inactive") || strings.Contains(change, "failed") {
			t.Errorf("a unit has changed: %s", change)
		}
	}
	for _, change := range lab.Changes(w.files, files(t, w.r)) {
		// A connection may have ended; and systemd 262 has 4 sockets more after each
		// re-execution, also without the program.
		if strings.HasPrefix(change, "+") && change != "+ process 1: socket" {
			t.Errorf("an open file: %s", change)
		}
	}
	w.r.CheckAnswers(t, lab.Accesses)
	checkUncovered(t, w.r.Container)
	checkNoWaiters(t, w.r.Container)
	checkRunsOn(t, w.r)
	lab.WaitNoneRunning(t, lab.AnswerLimit)
}
