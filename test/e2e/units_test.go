package e2e

import (
	"strconv"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestRestartRefused: a unit that systemd does not restart keeps its mount, and the
// covers of that.
func TestRestartRefused(t *testing.T) {
	requireHook(t)
	unit := lab.UnitName(lab.Covered, "automount")
	c := lab.Start(t, lab.Options{Files: map[string]string{
		"/etc/systemd/system/" + unit + ".d/refuse.conf": "[Unit]\nRefuseManualStop=yes\nRefuseManualStart=yes\n",
	}})
	c.Populate(t)
	s := checkpointOf(t, c)
	r := restoreStale(t, s)
	result := lab.RunHook(t, nil, nil, "repair", strconv.Itoa(r.PID), "--strategy", "restart", "--json")
	report := lab.ParseReport(t, result.Stdout)
	if report.Outcome != "partial" {
		t.Errorf("outcome %s", report.Outcome)
	}
	for _, m := range report.Mounts {
		want := m.Path == lab.Covered
		if m.Master.Kind == "systemd" && (m.Outcome == "unrepaired") != want {
			t.Errorf("%s: %s (%s)", m.Path, m.Outcome, m.Reason)
		}
	}
	if stack := lab.Stack(t, r.PID, lab.Covered); stack != "autofs < tmpfs" {
		t.Errorf("%s: %s, want autofs < tmpfs", lab.Covered, stack)
	}
	r.CheckAnswers(t, []lab.Access{{Path: lab.Covered + "/" + lab.Marker, Content: lab.Covered, About: "covered"}})
	if state := r.Settle(t)[unit]; state.ActiveState != "active" {
		t.Errorf("%s is %+v", unit, state)
	}
	// Its number is corrected when that is allowed.
	for _, m := range repairByHand(t, r, "--strategy", "reexec").Mounts {
		if m.Path == lab.Covered && m.Outcome != "reexecuted" {
			t.Errorf("%s: %s (%s), want reexecuted", m.Path, m.Outcome, m.Reason)
		}
	}
	r.CheckAnswers(t, lab.Accesses)
	checkNoWaiters(t, r.Container)
	checkUncovered(t, r.Container)
}

// TestUnitFileGone: systemd does not know the mount point of an active unit whose file
// was removed. The others are still repaired.
func TestUnitFileGone(t *testing.T) {
	requireHook(t)
	c := lab.Start(t, lab.Options{})
	c.Populate(t)
	c.Run(t, "sh", "-ec", `rm /etc/systemd/system/"$1"; systemctl daemon-reload`, "gone", lab.UnitName(lab.Idle, "automount"))
	s := checkpointOf(t, c)
	r := restoreStale(t, s)
	result := lab.RunHook(t, nil, nil, "repair", strconv.Itoa(r.PID), "--strategy", "reexec", "--json")
	for _, m := range lab.ParseReport(t, result.Stdout).Mounts {
		t.Logf("%s: %s (%s)", m.Path, m.Outcome, m.Reason)
		if m.Master.Kind == "systemd" && m.Path != lab.Idle && m.Outcome != "reexecuted" {
			t.Errorf("%s: %s (%s), want reexecuted", m.Path, m.Outcome, m.Reason)
		}
	}
	for _, a := range systemdAccesses() {
		if a.Path != lab.Idle+"/"+lab.Marker {
			r.CheckAnswers(t, []lab.Access{a})
		}
	}
}
