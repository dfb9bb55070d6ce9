package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

const unitsFolder = "/etc/systemd/system/"

// oneAutomount are the files of a container with one automount, on /mnt/only.
func oneAutomount() map[string]string {
	return map[string]string{
		unitsFolder + "mnt-only.automount":                 "[Automount]\nWhere=/mnt/only\n",
		unitsFolder + "mnt-only.mount":                     "[Mount]\nWhat=/srv/only\nWhere=/mnt/only\nType=none\nOptions=bind\n",
		unitsFolder + "multi-user.target.d/automount.conf": "[Unit]\nWants=mnt-only.automount\n",
		"/srv/only/" + lab.Marker:                          "/mnt/only\n",
	}
}

// TestMountMonitorAtRest checkpoints a systemd that ignores mount events: after five of
// them within a second it waits for a timer (mount.c, sd_event_source_set_ratelimit).
// CRIU restores that timer too early; systemd takes it for spurious and does not set it
// again. It answers no automount until another event wakes it.
func TestMountMonitorAtRest(t *testing.T) {
	requireHook(t)
	for _, suite := range systemdVersions {
		t.Run(suite, func(t *testing.T) {
			c := lab.Start(t, lab.Options{Plain: true, Systemd: suite, MountRateLimit: true, Files: oneAutomount()})
			c.Settle(t)
			c.Run(t, "sh", "-ec", "for i in 1 2 3 4 5 6 7 8; do mount -t tmpfs -o size=1m rest /mnt; sleep 0.02; umount /mnt; sleep 0.02; done")
			s := &snapshot{Checkpoint: c.Checkpoint(t)}
			for range 4 { // the moments of the restores in their second differ
				r := restoreWithHook(t, s, lab.RestoreOptions{})
				checkPreservedOnly(t, r.ReadReport(t))
				r.CheckAnswers(t, []lab.Access{{Path: "/mnt/only/" + lab.Marker, Content: "/mnt/only", About: "the only automount"}})
				r.Kill(t)
			}
		})
	}
}

// TestTimersGoOn has timer units, of the monotonic clock and of the calendar, that start a
// service every two seconds: they do so after the restore, too, also where the repair needs
// no connection to systemd.
func TestTimersGoOn(t *testing.T) {
	requireHook(t)
	for _, suite := range systemdVersions {
		t.Run(suite, func(t *testing.T) {
			files := oneAutomount()
			files[unitsFolder+"multi-user.target.d/timer.conf"] = "[Unit]\nWants=monotonic.timer calendar.timer\n"
			timers := map[string]string{"monotonic": "OnActiveSec=1s\nOnUnitInactiveSec=2s", "calendar": "OnCalendar=*:*:0/2"}
			for name, when := range timers {
				files[unitsFolder+name+".timer"] = "[Timer]\n" + when + "\nAccuracySec=10ms\n"
				files[unitsFolder+name+".service"] = "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo >>/srv/" + name + "'\n"
			}
			c := lab.Start(t, lab.Options{Plain: true, Systemd: suite, Files: files})
			c.Settle(t)
			s := &snapshot{Checkpoint: c.Checkpoint(t)}
			r := restoreWithHook(t, s, lab.RestoreOptions{})
			checkPreservedOnly(t, r.ReadReport(t))
			count := func(name string) int {
				return strings.Count(r.Run(t, "sh", "-c", "cat /srv/"+name+" 2>/dev/null || true"), "\n")
			}
			for name := range timers {
				before := count(name)
				for deadline := time.Now().Add(8 * time.Second); count(name) < before+2; time.Sleep(100 * time.Millisecond) {
					if time.Now().After(deadline) {
						t.Errorf("%s.timer no longer starts its service", name)
						break
					}
				}
			}
		})
	}
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
