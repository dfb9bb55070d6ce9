package e2e

import (
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// systemdVersions are containers with different versions of systemd: 252, 257 and the
// newest.
var systemdVersions = []string{"bookworm", "trixie", "sid"}

// TestReexecuted restores where all old numbers are occupied: the state of each systemd
// is corrected, and nothing else changes.
func TestReexecuted(t *testing.T) {
	requireHook(t)
	for _, suite := range systemdVersions {
		t.Run(suite, func(t *testing.T) { reexecuted(t, suite) })
	}
}

func reexecuted(t *testing.T, suite string) {
	s := sharedCheckpoint(t, lab.Options{Systemd: suite, MountRateLimit: true})
	captured := lab.Scratch(t, s.ContainerID()+"-captured-reexecuted")
	lab.InstallWrappedScript(t, lab.Hook(), lab.CaptureScript("post-restore", captured))
	const occupied = 40
	r := s.Restore(t, lab.RestoreOptions{Before: func() {
		if held := lab.HoldNumbersUpTo(t, s.highest).Count(); held < occupied {
			t.Errorf("only %d numbers are occupied", held)
		}
	}})
	checkReexecuted(t, r)
	r.CheckUntouched(t)
	t.Log("systemd", r.SystemdVersion(t))
	checkUnitsAndMounts(t, s, r, captured)
	r.CheckUntouched(t)
	lab.WaitNoneRunning(t, 0)
}

// checkReexecuted checks the report: every mount of systemd was reexecuted, because its
// number is occupied.
func checkReexecuted(t *testing.T, r *lab.Restored) {
	t.Helper()
	report := r.ReadReport(t)
	checkReport(t, report, r)
	t.Logf("the repair took %.1f ms", report.DurationMS)
	found := 0
	for _, m := range report.Mounts {
		if m.Master.Kind != "systemd" {
			continue
		}
		found++
		if m.Outcome != "reexecuted" || m.DeviceBefore == m.DeviceNow || m.DeviceBefore == "" {
			t.Errorf("report: %s: %s (%s), device %s, at the checkpoint %s", m.Path, m.Outcome, m.Reason, m.DeviceNow, m.DeviceBefore)
		}
	}
	if found == 0 {
		t.Error("report: no mount of a systemd")
	}
}

// systemdAccesses are the accesses that only systemd can answer.
func systemdAccesses() []lab.Access {
	var list []lab.Access
	for _, a := range lab.Accesses {
		if a.Stale && strings.HasPrefix(a.About, "systemd") {
			list = append(list, a)
		}
	}
	return list
}
