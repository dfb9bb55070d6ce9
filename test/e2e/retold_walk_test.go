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

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/owner"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// walk is a restored container that is brought back, again and again, to where
// it was after its restore: its systemd remembers the numbers of the
// checkpoint, and the program remembers no repair.
type walk struct {
	s       *snapshot
	r       *lab.Restored
	pid1    *nsenter.Process
	version int                   // systemd's
	changes []master.DeviceChange // from the numbers of the checkpoint to those of now
	units   map[string]lab.Unit
	files   []string

	steps, killed, old, corrected, finished int
}

// startWalk restores a container and repairs it once: its automount daemon is
// then a new one and stays.
func startWalk(t *testing.T, s *snapshot) *walk {
	t.Helper()
	w := &walk{s: s, r: restoreStale(t, s)}
	w.version = w.r.SystemdVersion(t)
	report := repairByHand(t, s, w.r, "--strategy", "retell")
	checkCure(t, report, "retold")
	seen := make(map[string]bool)
	for _, m := range report.Mounts {
		if unit := m.Master.Unit; m.Outcome == "retold" && !seen[unit] {
			seen[unit] = true
			w.changes = append(w.changes, master.DeviceChange{Unit: unit, Old: device(t, m.DeviceBefore), New: device(t, m.DeviceNow)})
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

// files are the open files of the container's processes, without their numbers:
// systemd gives its own new ones when it executes itself.
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

// device reads a number as the report has it.
func device(t *testing.T, text string) uint64 {
	t.Helper()
	var major, minor uint32
	if _, err := fmt.Sscanf(text, "%d:%d", &major, &minor); err != nil {
		t.Fatalf("device %q: %v", text, err)
	}
	return unix.Mkdev(major, minor)
}

// tell tells systemd numbers without the program, and returns which units have
// their new one.
func (w *walk) tell(t *testing.T, changes []master.DeviceChange) *master.StateEdit {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*lab.TouchLimit)
	defer cancel()
	edit, err := master.Retell(ctx, owner.Of(w.pid1).First(), master.Telling{Version: w.version, Changes: changes})
	if err != nil {
		t.Fatal(err)
	}
	return edit
}

// goStale makes systemd remember the numbers of the checkpoint.
func (w *walk) goStale(t *testing.T) {
	t.Helper()
	var back []master.DeviceChange
	for _, c := range w.changes {
		back = append(back, master.DeviceChange{Unit: c.Unit, Old: c.New, New: c.Old})
	}
	if edit := w.tell(t, back); len(edit.Changed) != len(back) {
		t.Fatalf("back to the old numbers: only %q, left %q", edit.Changed, edit.Left)
	}
	records, err := filepath.Glob("/run/autofs-restore-hook/containers/" + w.pid1.Identity() + "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range records {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	checkRunsOn(t, w.r)
}

// isCorrected looks which numbers systemd has. It is an error if it has some of
// both, or others.
func (w *walk) isCorrected(t *testing.T) bool {
	t.Helper()
	edit := w.tell(t, w.same())
	checkRunsOn(t, w.r)
	if len(edit.Changed) == len(w.changes) {
		return true
	}
	for _, c := range w.changes {
		if want := fmt.Sprintf("remembers device %d,", c.Old); !strings.Contains(edit.Left[c.Unit], want) {
			t.Errorf("%s: neither all old numbers nor all new ones: changed %q, left %q", c.Unit, edit.Changed, edit.Left)
		}
	}
	return false
}

// unmount takes away what accesses have mounted, and waits until systemd knows.
func (w *walk) unmount(t *testing.T) {
	t.Helper()
	w.r.Run(t, "umount", lab.Idle, lab.Blank, lab.Binfmt)
	w.r.Run(t, "systemctl", "reset-failed") // systemd's start limit: 5 in 10 s
	var units []string
	for _, path := range []string{lab.Idle, lab.Blank, lab.Binfmt} {
		units = append(units, lab.UnitName(path, "mount"))
	}
	waitUntil(t, "systemd has seen the unmounts", func() bool {
		o := w.r.Try(t, lab.TouchLimit, append([]string{"systemctl", "is-active"}, units...)...)
		return !strings.Contains("\n"+o.Output, "\nactive") && !strings.Contains(o.Output, "deactivating")
	})
}

// kill kills the program when it is about to make a system call for the n-th
// time, and lets it run again: systemd runs on, with all the old numbers or all
// the new ones, and the second run finishes the work.
func (w *walk) kill(t *testing.T, call string, list ...int) {
	t.Helper()
	for _, n := range list {
		w.steps++
		done := t.Run(call+" "+strconv.Itoa(n), func(t *testing.T) {
			w.goStale(t)
			if killedAt(t, w.s, w.r, call, n) {
				w.killed++
			}
			checkRunsOn(t, w.r)
			if w.isCorrected(t) {
				w.corrected++
			} else {
				w.old++
			}
			// "healthy" where this run came to its end before that call.
			report := repairByHand(t, w.s, w.r)
			for _, m := range report.Mounts {
				if m.Master.Kind == "systemd" && m.Outcome != "retold" && m.Reason != "an earlier run repaired it" {
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

// finish looks whether anything is left of all the kills.
func (w *walk) finish(t *testing.T) {
	t.Helper()
	for _, change := range unitsThatNoticed(w.units, w.r.Settle(t)) {
		// What the accesses mounted was mounted by them, each time anew.
		if !strings.Contains(change, ".mount: {ActiveState:inactive") || strings.Contains(change, "failed") {
			t.Errorf("a unit noticed: %s", change)
		}
	}
	for _, change := range lab.Changes(w.files, files(t, w.r)) {
		// A connection may have ended; and systemd 262 has 4 sockets more after each
		// re-execution, whoever made it execute itself.
		if strings.HasPrefix(change, "+") && change != "+ process 1: socket" {
			t.Errorf("an open file: %s", change)
		}
	}
	w.r.CheckAnswers(t, lab.Accesses)
	checkUncovered(t, w.r.Container)
	checkNoWaiters(t, w.r.Container)
	checkRunsOn(t, w.r)
	lab.WaitNoneRunning(t, lab.TouchLimit)
}
