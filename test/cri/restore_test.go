package cri

import (
	"os"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// criuConfig is the file that every CRIU reads.
const criuConfig = "/etc/criu/default.conf"

// forceIrmap has CRIU find watched files again by their path: the container is
// restored on another root file system.
func forceIrmap(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile(criuConfig, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("force-irmap\n"); err != nil {
		t.Fatal(err)
	}
}

// TestRestore restores containers through the CRI, with the accesses that hang
// without a repair.
func TestRestore(t *testing.T) {
	lab.RequireNode(t)
	for name, test := range map[string]struct {
		privileged bool
		agent      bool // alone: the program only creates the control groups that CRIU needs
		busy       bool // the old device numbers are in use
		cure       string
	}{
		"privileged, action script":       {true, false, false, "preserved"},
		"privileged, action script, busy": {true, false, true, "reexecuted"},
		"privileged, agent alone":         {true, true, false, "reexecuted"},
		"not privileged, action script":   {false, false, false, "preserved"},
		"not privileged, agent alone":     {false, true, false, "reexecuted"},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := lab.Prepare(t, lab.Options{})
			r := serveImages(t, c.Bundle+"/rootfs", lab.Scratch(t, "registry"))
			k := startContainerd(t, r.host, "")
			if test.agent {
				lab.InstallWrappedScript(t, lab.Hook(), "[ \"$CRTOOLS_SCRIPT_ACTION\" = post-setup-namespaces ] || exit 0\n")
				startAgent(t)
			} else {
				lab.InstallActionScript(t, lab.Hook())
			}
			forceIrmap(t)
			p := start(t, k, c, k.pull(t, r.host+"/base:1"), test.privileged)
			p.checkpoint(t)
			if test.busy {
				lab.HoldNumbersUpTo(t, p.highest)
			}
			started := p.restore(t)
			eventually(t, 10*time.Second, "a report", p.HasReport)
			t.Logf("reported %s after the start", time.Since(started).Round(time.Millisecond))
			report := p.ReadReport(t)
			if report.Outcome != "repaired" {
				t.Errorf("outcome %s", report.Outcome)
			}
			for _, m := range report.Mounts {
				if m.Master.Kind == "systemd" && m.Outcome != test.cure {
					t.Errorf("%s is %s (%s), want %s", m.Path, m.Outcome, m.Reason, test.cure)
				}
			}
			p.checkIdentical(t)
			p.CheckAnswers(t, accesses(test.privileged))
		})
	}
}

// accesses are those of the container. One that is not privileged has /proc/sys
// read-only, so systemd does not start binfmt_misc's automount.
func accesses(privileged bool) []lab.Access {
	var list []lab.Access
	for _, a := range lab.Accesses {
		if privileged || a.Path != lab.Binfmt+"/status" {
			list = append(list, a)
		}
	}
	return list
}
