package e2e

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestOtherMasters has two masters that are neither systemd nor automount, which the
// program does not know. The one that has a file open on its mount survives a restore;
// the other one does not, and is reported.
func TestOtherMasters(t *testing.T) {
	requireHook(t)
	const held, cached = "/other/held", "/other/cached"
	c := lab.Start(t, lab.Options{Plain: true, Roles: true, Args: []string{"/bin/sh", "-c", fmt.Sprintf(
		"setsid %[1]s serve %[2]s %[3]s & setsid %[1]s serve %[4]s %[5]s & while :; do sleep 1000; done",
		lab.RoleProgram, lab.HoldsRoot, held, lab.CachesDev, cached)}})
	waitUntil(t, "both masters have mounted", func() bool { return len(lab.Autofs(t, c.PID)) == 2 })
	s := checkpointWithoutSystemd(t, c)
	r := restoreWithHook(t, s, lab.RestoreOptions{})
	report := r.ReadReport(t)
	t.Log(outcomes(report))
	if report.Outcome != "partial" && report.Outcome != "failed" {
		t.Errorf("report: outcome %q, want partial or failed", report.Outcome)
	}
	for path, want := range map[string]string{held: "healthy", cached: "unrepaired"} {
		for _, m := range report.Mounts {
			if m.Path != path {
				continue
			}
			if m.Outcome != want || m.Reason == "" || m.Master.Kind == "systemd" || m.Master.Kind == "automount" {
				t.Errorf("report: %s: master %q, %s (%s), want %s", path, m.Master.Kind, m.Outcome, m.Reason, want)
			}
			if exe := readFile(t, "/proc/"+strconv.Itoa(m.Master.PID)+"/cmdline"); len(exe) == 0 {
				t.Errorf("report: %s: master is process %d, which has no command line", path, m.Master.PID)
			}
		}
	}
	if len(report.Mounts) != 2 {
		t.Errorf("report: %d mounts, want 2", len(report.Mounts))
	}
	r.CheckAnswers(t, []lab.Access{{Path: held + "/" + lab.Marker, Content: held, About: "a master that holds its mount open"}})
	// So the report is right about the other one, too.
	if o := r.Touch(t, cached+"/"+lab.Marker, lab.TouchLimit/3); !o.Waiting {
		t.Errorf("%s: %s; want it to hang", cached, o)
	}
}
