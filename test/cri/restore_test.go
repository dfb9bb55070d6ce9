package cri

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// scene is a container of a pod, and what repairs it.
type scene struct {
	name       string
	row        string // of the table, behind the engine's name
	column     string
	repairer   func(t *testing.T, p *pod)
	privileged bool
	busy       bool // the old device numbers are in use
	// setting returns a line of the runtime handler's configuration; nil for none.
	setting func(t *testing.T) string
	image   bool // restored from an image, not from an archive
	// changed are units that are not as before, for another reason than the repair.
	changed []string
	cure    string
}

const (
	byScript  = "action script"
	byAgent   = "agent alone"
	byHook    = "OCI hook"
	ownSpec   = ", privileged, base spec with a cgroup namespace"
	oldGroups = ", privileged, groups of the former container created by hand"
)

var scenes = []scene{
	{name: "action script", column: byScript, repairer: actionScript, cure: "preserved"},
	{name: "action script, busy", column: byScript + ", device numbers in use", repairer: actionScript, busy: true, cure: "reexecuted"},
	{name: "action script, image", column: byScript + ", from an image", repairer: actionScript, image: true, cure: "preserved"},
	{name: "agent alone", column: byAgent, repairer: agentAlone, cure: "reexecuted"},
	{name: "agent as its DaemonSet", column: byAgent + ", as its DaemonSet", repairer: agentPod, cure: "reexecuted"},
	{name: "OCI hook", column: byHook, repairer: noRepairer, cure: "reexecuted", setting: hookSpec},
	{name: "privileged, own groups", row: ownSpec, column: byScript, privileged: true, repairer: actionScript, cure: "preserved", setting: hookSpec},
	{name: "privileged, own groups, agent alone", row: ownSpec, column: byAgent, privileged: true, repairer: agentAlone, cure: "reexecuted", setting: cgroupSpec},
	{name: "privileged, action script", row: oldGroups, column: byScript, privileged: true, repairer: actionScript, cure: "preserved"},
	// Without a cgroup namespace systemd looks for its own scope under the name of
	// the former container when it re-executes itself, whatever the reason: the
	// group is empty.
	{name: "privileged, agent alone", row: oldGroups, column: byAgent, privileged: true, repairer: agentAlone, cure: "reexecuted", changed: []string{"init.scope"}},
}

func noRepairer(*testing.T, *pod) {}

// actionScript makes the program CRIU's action script.
func actionScript(t *testing.T, p *pod) {
	t.Helper()
	if p.ownGroups {
		lab.InstallActionScript(t, lab.Hook())
	} else {
		lab.InstallWrappedScript(t, lab.Hook(), p.oldGroups())
	}
}

// groupsOnly has the program create the control groups without which CRIU fails,
// and no more.
func groupsOnly(t *testing.T, p *pod) {
	t.Helper()
	lab.InstallWrappedScript(t, lab.Hook(), p.oldGroups()+"[ \"$CRTOOLS_SCRIPT_ACTION\" = post-setup-namespaces ] || exit 0\n")
}

// agentAlone has the agent repair.
func agentAlone(t *testing.T, p *pod) {
	t.Helper()
	groupsOnly(t, p)
	startAgent(t)
}

// TestRestore restores containers through the CRI, with the accesses that hang
// without a repair. Every unit and every daemon is as before.
func TestRestore(t *testing.T) {
	lab.RequireNode(t)
	for _, s := range scenes {
		t.Run(s.name, func(t *testing.T) { s.run(t) })
	}
}

func (s scene) run(t *testing.T) {
	t.Helper()
	cell := addCell(t, s.row, s.column)
	setting := ""
	if s.setting != nil {
		setting = s.setting(t)
	}
	p := startBase(t, setting, s.privileged)
	if s.row == ownSpec && !p.ownGroups {
		t.Fatal("the container has no cgroup namespace")
	}
	p.checkpoint(t)
	s.repairer(t, p)
	if s.image {
		p.archive = p.kubelet.pull(t, p.kubelet.registry.addArchive(t, p.archive))
	}
	if s.busy {
		lab.HoldNumbersUpTo(t, p.highest)
	}
	started := p.restore(t)
	lab.Eventually(t, 10*time.Second, "a report", p.HasReport)
	took := time.Since(started).Round(time.Millisecond)
	t.Logf("a report %s after the start", took)
	cell.Text = s.served(s.check(t, p))
	if s.cure != "preserved" && !s.busy {
		cell.Text += fmt.Sprintf(", %.1f s after the start", took.Seconds())
	}
}

// served is the text of a cell.
func (s scene) served(units int) string {
	but := ""
	if len(s.changed) > 0 {
		but = " but " + strings.Join(s.changed, ", ")
	}
	return fmt.Sprintf("all served, %d units identical%s: `%s`", units, but, s.cure)
}

// check checks the report, the units and the accesses. It returns the number of units
// that are as before.
func (s scene) check(t *testing.T, p *pod) int {
	t.Helper()
	report := p.ReadReport(t)
	if report.Outcome != "repaired" {
		t.Errorf("outcome %s", report.Outcome)
	}
	for _, m := range report.Mounts {
		if m.Master.Kind == "systemd" && m.Outcome != s.cure {
			t.Errorf("%s is %s (%s), want %s", m.Path, m.Outcome, m.Reason, s.cure)
		}
	}
	units := p.checkIdentical(t, s.changed...)
	p.CheckAnswers(t, accesses(p.privileged))
	return units
}

// TestHangs shows that accesses hang without a repair.
func TestHangs(t *testing.T) {
	lab.RequireNode(t)
	cell := addCell(t, "", control)
	p := startBase(t, "", false)
	p.checkpoint(t)
	groupsOnly(t, p)
	p.restore(t)
	list, hung, stale := accesses(p.privileged), 0, 0
	for i, touch := range p.TouchAccesses(t, list, time.Second) {
		if touch.Hung != list[i].Stale {
			t.Errorf("%s (%s): %s", list[i].Path, list[i].About, touch)
		}
		if touch.Hung {
			hung++
		}
		if list[i].Stale {
			stale++
		}
	}
	cell.Text = fmt.Sprintf("%d of %d accesses hang", hung, stale)
}

// TestPrivilegedFails: containerd gives a privileged container no cgroup namespace. Its
// systemd watches control groups of the former container, which no longer exist, and the
// program creates none outside of the restored container's own.
func TestPrivilegedFails(t *testing.T) {
	lab.RequireNode(t)
	cell := addCell(t, ", privileged", byScript)
	p := startBase(t, "", true)
	p.checkpoint(t)
	lab.InstallActionScript(t, lab.Hook())
	err := p.create(t, p.archive)
	if log := p.criuLog(); err == nil || !strings.Contains(log, "fsnotify: Unable to open /sys/fs/cgroup/") {
		t.Errorf("%v\n%s", err, log)
	}
	cell.Text = "CRIU fails: no cgroup namespace"
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
