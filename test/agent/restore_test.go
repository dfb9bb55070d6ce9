package agent

import (
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
	"github.com/autofs-restore-hook/autofs-restore-hook/test/metrics"
)

// checkpointed is a populated container in files.
func checkpointed(t *testing.T, d *daemon) *container {
	t.Helper()
	c := start(t, d, lab.Options{})
	c.Populate(t)
	c.countMounts(t)
	for _, m := range lab.Autofs(t, c.PID) {
		c.highest = max(c.highest, uint32(m.Minor))
	}
	c.checkpoint(t)
	return c
}

// counted waits for the agent to have counted so many restores in all, and
// returns its metrics.
func (p *pod) counted(t *testing.T, restores float64) metrics.Samples {
	t.Helper()
	var s metrics.Samples
	lab.Eventually(t, 30*time.Second, "the restores are counted", func() bool {
		s = p.metrics(t)
		return s.Sum("restores_total", "") >= restores
	})
	time.Sleep(200 * time.Millisecond) // for one too many
	if s = p.metrics(t); s.Sum("restores_total", "") != restores {
		t.Errorf("%v restores are counted, want %v: %v", s.Sum("restores_total", ""), restores, s)
	}
	return s
}

// TestRepair has no action script on the node but one that creates control groups,
// without which CRIU would fail: the agent alone repairs. It has no images, and
// leaves every unit and every daemon as it was.
func TestRepair(t *testing.T) {
	d := startContainerd(t)
	p := newPod(t, d, withoutInstall)
	p.start(t)
	p.ready(t)
	c := checkpointed(t, d)
	lab.InstallGroupsOnly(t, c.groups)
	for i, test := range []struct {
		cure          string
		before, after func()
	}{
		{cure: "reexecuted", before: func() { lab.HoldNumbersUpTo(t, c.highest) }},
		{cure: "reexecuted", after: func() { // as engines do that delete the images
			if err := os.Rename(c.images, c.images+".away"); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(test.cure, func(t *testing.T) {
			before := p.metrics(t)
			if test.before != nil {
				test.before()
			}
			started := c.restore(t)
			if test.after != nil {
				test.after()
			}
			defer c.end(t)
			c.awaitReport(t, started)
			c.checkIdentical(t)
			c.CheckAnswers(t, lab.Accesses)
			s := p.counted(t, float64(i+1))
			for _, name := range []string{"missed_restores_total", "failed_runs_total", "ended_restores_total"} {
				if s[name] != 0 {
					t.Errorf("%s is %v", name, s[name])
				}
			}
			for name, want := range map[string]float64{
				"restores_total": 1, "reaction_seconds": 1, "repair_duration_seconds": 1, "mounts_total": c.mounts.all(),
			} {
				if got := s.Sum(name, "") - before.Sum(name, ""); got != want {
					t.Errorf("%s grew by %v, want %v", name, got, want)
				}
			}
			if got := s.Sum("mounts_total", "outcome="+test.cure) - before.Sum("mounts_total", "outcome="+test.cure); got != c.mounts.systemd {
				t.Errorf("%v mounts are counted as %s, want %v: %v", got, test.cure, c.mounts.systemd, s)
			}
			if got := s.Sum("restores_total", "by=agent,outcome=repaired"); got != float64(i+1) {
				t.Errorf("%v restores repaired by the agent, want %d", got, i+1)
			}
		})
	}
}

// awaitReport waits for the report about the restored container, and logs how long after
// the start event it came.
func (c *container) awaitReport(t *testing.T, started time.Time) {
	t.Helper()
	path := runDirectory + "/reports/" + c.ID + ".json"
	lab.Eventually(t, 10*time.Second, "a report", func() bool {
		info, err := os.Stat(path)
		return err == nil && info.ModTime().After(started.Add(-100*time.Millisecond))
	})
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("repaired %s after the start", info.ModTime().Sub(started).Round(time.Millisecond))
}

// TestActionScript has the hook at work: the agent counts, and does nothing.
func TestActionScript(t *testing.T) {
	d := startContainerd(t)
	p := newPod(t, d, withoutInstall)
	p.start(t)
	p.ready(t)
	c := checkpointed(t, d)
	lab.InstallActionScript(t, lab.Hook())
	c.restore(t)
	s := p.counted(t, 1)
	s.Expect(t, map[string]float64{
		"restores_total{by=action-script,outcome=repaired}": 1,
		"mounts_total{master=systemd,outcome=preserved}":    c.mounts.systemd,
		"mounts_total{master=automount,outcome=reloaded}":   c.mounts.direct,
		"mounts_total{master=automount,outcome=healthy}":    c.mounts.indirect,
		"repair_duration_seconds{by=action-script}":         1,
		"reaction_seconds":   0,
		"repairs_queued":     0,
		"waiters_left_total": 0,
	})
	if age := time.Since(time.Unix(0, int64(s["last_success_timestamp_seconds"]*1e9))); age < 0 || age > time.Minute {
		t.Errorf("the last success was %s ago", age)
	}
	c.CheckAnswers(t, lab.Accesses)
}

// TestAtOnce restores several containers at the same time, with one worker. They
// may have each other's device numbers now, so some mounts need another cure.
func TestAtOnce(t *testing.T) {
	d := startContainerd(t)
	p := newPod(t, d, func(s *corev1.PodSpec) {
		withoutInstall(s)
		s.Containers[0].Args = append(s.Containers[0].Args, "-workers=1")
	})
	p.start(t)
	p.ready(t)
	var groups []string
	containers := make([]*container, 4)
	for i := range containers {
		containers[i] = checkpointed(t, d)
		groups = append(groups, containers[i].groups...)
	}
	lab.InstallGroupsOnly(t, groups)
	var group sync.WaitGroup
	for _, c := range containers {
		group.Go(func() {
			if err := c.tryRestore(t); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	s := p.counted(t, float64(len(containers)))
	if got := s.Sum("restores_total", "by=agent,outcome=repaired"); got != float64(len(containers)) || s["reaction_seconds"] != got {
		t.Errorf("%v", s)
	}
	want := 0.0
	for _, c := range containers {
		c.CheckAnswers(t, lab.Accesses)
		want += c.mounts.all()
	}
	if got := s.Sum("mounts_total", ""); got != want {
		t.Errorf("%v mounts are counted, want %v: %v", got, want, s)
	}
}

// TestUnrepaired has a systemd that is stopped: nothing can be judged, and the pod
// gets an Event with the second look. When systemd runs again the third repairs all.
func TestUnrepaired(t *testing.T) {
	d := startContainerd(t)
	api := newAPI(t)
	p := newPod(t, d, func(s *corev1.PodSpec) {
		withoutInstall(s)
		api.give(s)
	})
	p.start(t)
	p.ready(t)
	c := checkpointed(t, d)
	lab.InstallGroupsOnly(t, c.groups)
	c.restore(t)
	if err := syscall.Kill(c.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	e := api.wait(t)
	if e.Type != corev1.EventTypeWarning || e.Reason != "AutomountsUnrepaired" || e.Namespace != "default" ||
		e.InvolvedObject.Kind != "Pod" || e.InvolvedObject.Name != labels["io.kubernetes.pod.name"] ||
		string(e.InvolvedObject.UID) != labels["io.kubernetes.pod.uid"] || e.InvolvedObject.FieldPath != "spec.containers{legacy}" ||
		e.Source.Host != "node-1" || !strings.Contains(e.Message, lab.Idle) {
		t.Errorf("event: %+v", e)
	}
	t.Log(e.Message)
	if s := p.metrics(t); s["last_success_timestamp_seconds"] != 0 || s.Sum("restores_total", "") != 0 {
		t.Errorf("it counts already: %v", s)
	}
	if err := syscall.Kill(c.PID, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	s := p.counted(t, 1)
	if s.Sum("mounts_total", "outcome=unrepaired") != 0 || s.Sum("mounts_total", "outcome=reexecuted") != c.mounts.systemd {
		t.Errorf("not all was repaired: %v", s)
	}
	c.CheckAnswers(t, lab.Accesses)
	if s["events_posted_total"] != 1 || s["events_lost_total"] != 0 {
		t.Errorf("%v", s)
	}
}

// withoutInstall leaves the host's CRIU alone.
func withoutInstall(s *corev1.PodSpec) {
	s.Containers[0].Args = append(s.Containers[0].Args, "-install=false")
}
