package e2e

import (
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestMountMonitorAtRest checkpoints a systemd that ignores mount events: after five of
// them within a second it waits for a timer (mount.c, sd_event_source_set_ratelimit).
// CRIU restores that timer, an absolute one, as if its remaining time were a date long
// past; systemd takes it for spurious and does not arm it again. It answers no automount
// until another event wakes it.
func TestMountMonitorAtRest(t *testing.T) {
	requireHook(t)
	const dir = "/etc/systemd/system/"
	c := lab.Start(t, lab.Options{Plain: true, Files: map[string]string{
		dir + "mnt-only.automount":                 "[Automount]\nWhere=/mnt/only\n",
		dir + "mnt-only.mount":                     "[Mount]\nWhat=/srv/only\nWhere=/mnt/only\nType=none\nOptions=bind\n",
		dir + "multi-user.target.d/automount.conf": "[Unit]\nWants=mnt-only.automount\n",
		"/srv/only/" + lab.Marker:                  "/mnt/only\n",
	}})
	c.Settle(t)
	c.Run(t, "sh", "-ec", "for i in 1 2 3 4 5 6 7 8; do mount -t tmpfs -o size=1m rest /mnt; sleep 0.02; umount /mnt; sleep 0.02; done")
	s := &snapshot{Checkpoint: c.Checkpoint(t)}
	r := restoreWithHook(t, s, lab.RestoreOptions{})
	checkPreservedOnly(t, r.ReadReport(t))
	r.CheckAnswers(t, []lab.Access{{Path: "/mnt/only/" + lab.Marker, Content: "/mnt/only", About: "the only automount"}})
}

func checkPreservedOnly(t *testing.T, report lab.Report) {
	t.Helper()
	if len(report.Mounts) == 0 {
		t.Error("report: no mount")
	}
	for _, m := range report.Mounts {
		if m.Outcome != "preserved" {
			t.Errorf("report: %s: %s (%s), want preserved", m.Path, m.Outcome, m.Reason)
		}
	}
}
