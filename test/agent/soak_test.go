package agent

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestSoak restores again and again, in turn with and without the action
// script: SOAK times, or 6. The metrics must say what happened, and the agent
// must not grow.
func TestSoak(t *testing.T) {
	rounds := soakRounds(t)
	d := startContainerd(t)
	p := newPod(t, d, withoutInstall)
	p.start(t)
	p.ready(t)
	c := checkpointed(t, d)
	began := time.Now()
	var early samples
	scripts := 0
	for i := range rounds {
		if i%2 == 0 {
			lab.InstallActionScript(t, lab.Hook())
			scripts++
		} else {
			lab.InstallGroupsOnly(t, c.groups)
		}
		c.restore(t)
		eventually(t, 15*time.Second, "the restore is counted", func() bool {
			return p.metrics(t).sum("restores_total", "") > float64(i)
		})
		if i == rounds-1 {
			c.CheckAnswers(t, lab.Accesses)
		}
		c.end(t)
		if i == min(20, rounds/2) {
			early = p.metrics(t)
		}
	}
	s := p.counted(t, float64(rounds))
	by, own := float64(scripts), float64(rounds-scripts)
	for name, want := range map[string]float64{
		"restores_total{by=action-script,outcome=repaired}": by,
		"restores_total{by=agent,outcome=repaired}":         own,
		"mounts_total{master=systemd,outcome=preserved}":    c.mounts.systemd * by,
		"mounts_total{master=systemd,outcome=reexecuted}":   c.mounts.systemd * own,
		"mounts_total{master=automount,outcome=reloaded}":   c.mounts.direct * float64(rounds),
		"mounts_total{master=automount,outcome=healthy}":    c.mounts.indirect * float64(rounds),
		"reaction_seconds":        own,
		"missed_restores_total":   0,
		"failed_runs_total":       0,
		"ended_restores_total":    0,
		"repairs_queued":          0,
		"engine_reconnects_total": 0,
	} {
		if s[name] != want {
			t.Errorf("%s is %v, want %v", name, s[name], want)
		}
	}
	const megabyte = 1 << 20
	t.Logf("%d restores in %s; memory %.1f MB early, %.1f MB at the end; goroutines %v, %v; files %v, %v", rounds, time.Since(began).Round(time.Millisecond),
		early["process_resident_memory_bytes"]/megabyte, s["process_resident_memory_bytes"]/megabyte,
		early["go_goroutines"], s["go_goroutines"], early["process_open_fds"], s["process_open_fds"])
	if grown := s["process_resident_memory_bytes"] - early["process_resident_memory_bytes"]; grown > 8*megabyte {
		t.Errorf("the agent has grown by %.1f MB", grown/megabyte)
	}
	if s["process_open_fds"] > early["process_open_fds"]+3 || s["go_goroutines"] > early["go_goroutines"]+5 {
		t.Errorf("files or goroutines are left: %v, early %v", s, early)
	}
}

// soakRounds is how many restores TestSoak does.
func soakRounds(t *testing.T) int {
	t.Helper()
	text := os.Getenv("SOAK")
	if text == "" {
		return 6
	}
	rounds, err := strconv.Atoi(text)
	if err != nil || rounds < 2 {
		t.Fatalf("SOAK=%q: want a number of restores", text)
	}
	return rounds
}
