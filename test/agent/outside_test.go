package agent

import (
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// agentAmong starts an agent where containers run already, with an API server for
// its Events.
func agentAmong(t *testing.T, d *daemon) *pod {
	t.Helper()
	api := newAPI(t)
	p := newPod(t, d, nil)
	withoutInstall(&p.spec)
	api.give(&p.spec)
	p.start(t)
	p.ready(t)
	return p
}

// checkIdle wants an agent that has repaired nothing and warned of nothing.
func checkIdle(t *testing.T, p *pod) {
	t.Helper()
	s := p.metrics(t)
	for _, name := range []string{"missed_restores_total", "failed_runs_total", "events_posted_total", "events_lost_total"} {
		if s[name] != 0 {
			t.Errorf("%s is %v", name, s[name])
		}
	}
	if got := s.Sum("restores_total", ""); got != 0 {
		t.Errorf("%v restores are counted: %v", got, s)
	}
}

// TestFirstLook has an agent find containers that show mounts of others: the node's
// automount, and that of another container's systemd. Nothing happens to them.
func TestFirstLook(t *testing.T) {
	d := startContainerd(t)
	host, volume := lab.StartHost(t), lab.SharedFolder(t)
	const auto = "/volume/auto"
	bind := func(at, propagation string) specs.Mount {
		return specs.Mount{Destination: at, Type: "bind", Source: volume, Options: []string{"rbind", propagation}}
	}
	unit := "/etc/systemd/system/" + lab.UnitName(auto, "automount")
	a := start(t, d, lab.Options{
		Propagation: "rshared", Mounts: []specs.Mount{bind("/volume", "rshared"), host.Bind(lab.HostIndirect, "rslave")},
		Files: map[string]string{
			unit: "[Automount]\nWhere=" + auto + "\n",
			"/etc/systemd/system/" + lab.UnitName(auto, "mount"): "[Mount]\nWhat=tmpfs\nWhere=" + auto + "\nType=tmpfs\n",
		},
	})
	a.Run(t, "systemctl", "start", lab.UnitName(auto, "automount"))
	a.Populate(t)
	b := start(t, d, lab.Options{
		Plain: true, Args: []string{"sleep", "1000"},
		Mounts: []specs.Mount{bind("/volume", "rslave"), bind("/other", "rslave"), host.Bind(lab.HostIndirect, "rprivate")},
	})
	if shown := lab.Autofs(t, b.PID); shown[auto] == nil || shown["/other/auto"] == nil || shown[lab.HostIndirect] == nil {
		t.Fatalf("the second container does not show the others' mounts: %v", shown)
	}
	host.Wait(t, lab.HostIndirect+"/slow/"+lab.Marker)
	units, mounts := a.Units(t), host.Mounts(t)
	p := agentAmong(t, d)
	lab.Eventually(t, 10*time.Second, "it has looked at both", func() bool {
		s := p.metrics(t)
		return s["repairs_queued"] == 0
	})
	time.Sleep(time.Second)
	checkIdle(t, p)
	for _, change := range lab.UnitChanges(units, a.Units(t)) {
		t.Errorf("the first container's systemd: %s", change)
	}
	for path, m := range host.Mounts(t) {
		if m != mounts[path] {
			t.Errorf("the host's %s: %s, before %s", path, m, mounts[path])
		}
	}
}

// TestFirstLookSlow has an agent find a container in which a process waits for a slow
// server: nothing is known of that mount, and nothing is done until more is.
func TestFirstLookSlow(t *testing.T) {
	const answer = "/answer" // the server waits for this file
	d := startContainerd(t)
	c := start(t, d, lab.Options{Files: map[string]string{
		"/etc/systemd/system/slow.service":                                        "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'until [ -e " + answer + " ]; do sleep 0.02; done'\n",
		"/etc/systemd/system/" + lab.UnitName(lab.Idle, "mount") + ".d/slow.conf": "[Unit]\nRequires=slow.service\nAfter=slow.service\n",
	}})
	c.Populate(t)
	unit := lab.UnitName(lab.Idle, "automount")
	before := c.Units(t)[unit]
	done := make(chan lab.Touch, 1)
	go func() { done <- c.Touch(t, lab.Idle+"/"+lab.Marker, time.Minute) }()
	lab.Eventually(t, 5*time.Second, "a process waits", func() bool { return len(c.Waiters(t)) > 0 })
	p := agentAmong(t, d)
	time.Sleep(time.Second) // the first look; the next one is 5 s later
	lab.Eventually(t, 10*time.Second, "the agent has found it", func() bool { return p.metrics(t)["repairs_queued"] == 1 })
	if now := c.Units(t)[unit]; now.InvocationID != before.InvocationID {
		t.Errorf("%s: %+v, before %+v", unit, now, before)
	}
	c.Run(t, "touch", answer)
	access := lab.Access{Path: lab.Idle, Content: lab.Idle}
	if o := <-done; !access.Answers(o) {
		t.Errorf("the process that waits: %s", o)
	}
	lab.Eventually(t, 30*time.Second, "the agent has looked again", func() bool { return p.metrics(t)["repairs_queued"] == 0 })
	if now := c.Units(t)[unit]; now.InvocationID != before.InvocationID {
		t.Errorf("%s: %+v, before %+v", unit, now, before)
	}
	checkIdle(t, p)
}
