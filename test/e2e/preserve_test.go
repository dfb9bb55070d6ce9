package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
	"github.com/moby/sys/mountinfo"
)

// TestSystemdNeverNotices compares a repaired container with the checkpointed one, and
// with the state after CRIU's restore.
func TestSystemdNeverNotices(t *testing.T) {
	requireHook(t)
	for name, options := range map[string]lab.Options{"private": {MountRateLimit: true}, "shared": {Shared: true}} {
		t.Run(name, func(t *testing.T) { checkNeverNotices(t, options) })
	}
}

func checkNeverNotices(t *testing.T, options lab.Options) {
	s := sharedCheckpoint(t, options)
	captured := lab.Scratch(t, s.ContainerID()+"-captured-preserved")
	lab.InstallWrappedScript(t, lab.Hook(), lab.CaptureScript("post-restore", captured))
	r := s.Restore(t, lab.RestoreOptions{})
	checkPreserved(t, r)
	checkUnitsAndMounts(t, s, r, captured)
}

// checkUnitsAndMounts compares a repaired container with its units and mounts before the
// checkpoint, and with the mounts after CRIU's restore.
func checkUnitsAndMounts(t *testing.T, s *snapshot, r *lab.Restored, captured string) {
	t.Helper()
	for _, change := range changedUnits(s.units, r.Settle(t)) {
		t.Errorf("a unit has changed: %s", change)
	}
	after, criu := r.Forest(t), lab.ReadCapture(t, captured)
	for _, change := range lab.Changes(criu.DescribePropagation(), after.DescribePropagation()) {
		t.Errorf("mounts: changed since CRIU made them: %s", change)
	}
	for _, change := range lab.Changes(withoutFD(autofsOptions(s.forest)), withoutFD(autofsOptions(after))) {
		t.Errorf("options: changed since the checkpoint: %s", change)
	}
	checkSameCovers(t, criu, after)
	checkWorkingService(t, r, s.units["worker.service"].MainPID)
	r.CheckAnswers(t, lab.Accesses)
	checkNoWaiters(t, r.Container)
	checkUncovered(t, r.Container)
}

// changedUnits returns the units that have changed, without the mount that an
// automount daemon makes and unmounts again at its start.
func changedUnits(before, after map[string]lab.Unit) []string {
	return slices.DeleteFunc(lab.UnitChanges(before, after), func(change string) bool { return strings.HasPrefix(change, "tmp-auto") })
}

// checkPreserved checks the report and the mounts: every mount of a systemd has its
// number from the checkpoint.
func checkPreserved(t *testing.T, r *lab.Restored) {
	t.Helper()
	report := r.ReadReport(t)
	checkReport(t, report, r)
	now := lab.Autofs(t, r.PID)
	for _, m := range report.Mounts {
		if m.Master.Kind != "systemd" {
			continue
		}
		if m.Outcome != "preserved" || m.DeviceBefore == "" || m.DeviceBefore != m.DeviceNow {
			t.Errorf("report: %s: %s, device %s, at the checkpoint %s (%s)", m.Path, m.Outcome, m.DeviceNow, m.DeviceBefore, m.Reason)
		}
		if mount := now[m.Path]; mount != nil && fmt.Sprintf("%d:%d", mount.Major, mount.Minor) != m.DeviceNow {
			t.Errorf("%s: device %d:%d, the report has %s", m.Path, mount.Major, mount.Minor, m.DeviceNow)
		}
	}
}

// autofsOptions lists the autofs mounts without the properties that no restore can
// preserve. The daemon's mounts are left out: its process is another one.
func autofsOptions(f lab.Forest) []string {
	var lines []string
	for _, line := range f.Describe() {
		if strings.Contains(line, " autofs systemd-1 ") {
			lines = append(lines, line)
		}
	}
	return lines
}

// checkSameCovers compares mount ids: every mount except autofs is the one of CRIU's
// restore, in every namespace.
func checkSameCovers(t *testing.T, criu, after lab.Forest) {
	t.Helper()
	for name, table := range after {
		made := make(map[int]*mountinfo.Info)
		for _, m := range criu[name] {
			made[m.ID] = m
		}
		for _, m := range table {
			if m.FSType == "autofs" {
				continue
			}
			if old := made[m.ID]; old == nil || old.Mountpoint != m.Mountpoint {
				t.Errorf("namespace of process %s: mount %d (%s on %s) was not made by CRIU", name, m.ID, m.FSType, m.Mountpoint)
			}
		}
	}
}

// checkWorkingService checks the service that works on a covered automount: its working
// folder and its open file are still on the cover.
func checkWorkingService(t *testing.T, r *lab.Restored, inside string) {
	t.Helper()
	pid := r.HostPID(t, inside)
	if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err != nil || cwd != lab.Covered {
		t.Errorf("worker.service works in %q, want %s (%v)", cwd, lab.Covered, err)
	}
	var cover *mountinfo.Info
	for _, m := range lab.Mounts(t, r.PID) {
		if m.Mountpoint == lab.Covered && m.FSType == "tmpfs" {
			cover = m
		}
	}
	if cover == nil {
		t.Fatalf("%s has no cover any more", lab.Covered)
	}
	const file = 7
	info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, file))
	if err != nil || !strings.Contains(string(info), fmt.Sprintf("mnt_id:\t%d\n", cover.ID)) {
		t.Errorf("worker.service: its open file is not on mount %d, the cover (%v):\n%s", cover.ID, err, info)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(fmt.Sprintf("/proc/%d/fd/%d", pid, file), &st); err != nil {
		t.Fatal(err)
	}
	named := strings.TrimSpace(r.Run(t, "stat", "--format=%d:%i", lab.Covered+"/open-file"))
	if open := fmt.Sprintf("%d:%d", st.Dev, st.Ino); open != named {
		t.Errorf("worker.service: its open file is %s, the file of that name %s", open, named)
	}
}
