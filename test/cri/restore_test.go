package cri

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// scene is a container of a pod, and what repairs it.
type scene struct {
	privileged bool
	repairer   func(t *testing.T, p *pod)
	busy       bool // the old device numbers are in use
	// handler returns a line of the runtime handler's configuration; nil if it has
	// none beyond those that all have.
	handler func(t *testing.T) string
	image   bool // restored from an image, not from an archive
	// changed are units that are not as before, for another reason than the repair.
	changed []string
	cure    string
}

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
	for name, s := range map[string]scene{
		"action script":             {repairer: actionScript, cure: "preserved"},
		"action script, busy":       {repairer: actionScript, busy: true, cure: "reexecuted"},
		"action script, image":      {repairer: actionScript, image: true, cure: "preserved"},
		"agent alone":               {repairer: agentAlone, cure: "reexecuted"},
		"agent as its DaemonSet":    {repairer: agentPod, cure: "reexecuted"},
		"privileged, action script": {privileged: true, repairer: actionScript, cure: "preserved"},
		"OCI hook":                  {repairer: func(*testing.T, *pod) {}, cure: "reexecuted", handler: hookSpec},
		"privileged, own groups":    {privileged: true, repairer: actionScript, cure: "preserved", handler: cgroupSpec},
		// Without a cgroup namespace systemd looks for its own scope under the name of
		// the former container when it re-executes itself, whatever the reason: the
		// group is empty.
		"privileged, agent alone": {privileged: true, repairer: agentAlone, cure: "reexecuted", changed: []string{"init.scope"}},
	} {
		t.Run(name, func(t *testing.T) { s.run(t) })
	}
}

func (s scene) run(t *testing.T) {
	t.Helper()
	c, _ := lab.Prepare(t, lab.Options{})
	r := serve(t)
	r.addRoot(t, filepath.Join(c.Bundle, "rootfs"))
	handler := ""
	if s.handler != nil {
		handler = s.handler(t)
	}
	k := startContainerd(t, r, handler)
	p := start(t, k, c, k.pull(t, r.host+"/base:1"), s.privileged)
	p.checkpoint(t)
	s.repairer(t, p)
	if s.image {
		p.archive = k.pull(t, r.addArchive(t, p.archive))
	}
	if s.busy {
		lab.HoldNumbersUpTo(t, p.highest)
	}
	started := p.restore(t)
	eventually(t, 10*time.Second, "a report", p.HasReport)
	t.Logf("a report %s after the start", time.Since(started).Round(time.Millisecond))
	report := p.ReadReport(t)
	if report.Outcome != "repaired" {
		t.Errorf("outcome %s", report.Outcome)
	}
	for _, m := range report.Mounts {
		if m.Master.Kind == "systemd" && m.Outcome != s.cure {
			t.Errorf("%s is %s (%s), want %s", m.Path, m.Outcome, m.Reason, s.cure)
		}
	}
	p.checkIdentical(t, s.changed...)
	p.CheckAnswers(t, accesses(s.privileged))
}

// TestHangs shows that accesses hang without a repair.
func TestHangs(t *testing.T) {
	lab.RequireNode(t)
	p := startBase(t, "", false)
	p.checkpoint(t)
	groupsOnly(t, p)
	p.restore(t)
	list := accesses(false)
	for i, touch := range p.TouchAccesses(t, list, time.Second) {
		if touch.Hung != list[i].Stale {
			t.Errorf("%s (%s): %s", list[i].Path, list[i].About, touch)
		}
	}
}

// TestPrivilegedFails: containerd gives a privileged container no cgroup namespace.
// Its systemd watches control groups of the former container, which no longer
// exist, and the program creates none outside of the restored container's own.
func TestPrivilegedFails(t *testing.T) {
	lab.RequireNode(t)
	p := startBase(t, "", true)
	p.checkpoint(t)
	lab.InstallActionScript(t, lab.Hook())
	err := p.create(t, p.archive)
	if log := p.criuLog(); err == nil || !strings.Contains(log, "fsnotify: Unable to open /sys/fs/cgroup/") {
		t.Errorf("%v\n%s", err, log)
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
