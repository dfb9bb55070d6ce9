package cri

import (
	"bufio"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestSoak restores one checkpoint again and again, each time under a new id, with
// the agent alone: SOAK times, or 3. The agent's memory, files and metrics stay
// right.
func TestSoak(t *testing.T) {
	lab.RequireNode(t)
	rounds := 3
	if text := os.Getenv("SOAK"); text != "" {
		var err error
		if rounds, err = strconv.Atoi(text); err != nil || rounds < 2 {
			t.Fatalf("SOAK=%q: want a number of restores", text)
		}
	}
	c, _ := lab.Prepare(t, lab.Options{})
	r := serve(t)
	r.addRoot(t, filepath.Join(c.Bundle, "rootfs"))
	k := startContainerd(t, r, "")
	p := start(t, k, c, k.pull(t, r.host+"/base:1"), false)
	p.checkpoint(t)
	groupsOnly(t, p)
	listen := startAgent(t)
	var early map[string]float64
	began := time.Now()
	for i := range rounds {
		p.restore(t)
		eventually(t, 15*time.Second, "the restore is counted", func() bool {
			return metrics(t, listen)[`autofs_restore_restores_total{by="agent",outcome="repaired"}`] == float64(i+1)
		})
		if i == rounds-1 {
			p.CheckAnswers(t, accesses(false))
		}
		p.remove(t)
		if i == min(20, rounds/2) {
			early = metrics(t, listen)
		}
	}
	m := metrics(t, listen)
	for name, want := range map[string]float64{
		`autofs_restore_mounts_total{master="systemd",outcome="unrepaired"}`: 0,
		"autofs_restore_reaction_seconds_count":                              float64(rounds),
		"autofs_restore_missed_restores_total":                               0,
		"autofs_restore_failed_runs_total":                                   0,
		"autofs_restore_ended_restores_total":                                0,
		"autofs_restore_repairs_queued":                                      0,
	} {
		if m[name] != want {
			t.Errorf("%s is %v, want %v", name, m[name], want)
		}
	}
	const megabyte = 1 << 20
	t.Logf("%d restores in %s; on average repaired %.3f s after the start; memory %.1f MB early, %.1f MB at the end; goroutines %v, %v; files %v, %v",
		rounds, time.Since(began).Round(time.Second), m["autofs_restore_reaction_seconds_sum"]/float64(rounds),
		early["process_resident_memory_bytes"]/megabyte, m["process_resident_memory_bytes"]/megabyte,
		early["go_goroutines"], m["go_goroutines"], early["process_open_fds"], m["process_open_fds"])
	if grown := m["process_resident_memory_bytes"] - early["process_resident_memory_bytes"]; grown > 8*megabyte {
		t.Errorf("the agent has grown by %.1f MB", grown/megabyte)
	}
	if m["process_open_fds"] > early["process_open_fds"]+3 || m["go_goroutines"] > early["go_goroutines"]+5 {
		t.Errorf("files or goroutines are left: %v, early %v", m, early)
	}
}

// metrics are the agent's, by name and labels.
func metrics(t *testing.T, listen string) map[string]float64 {
	t.Helper()
	r, err := http.Get("http://" + listen + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	all := map[string]float64{}
	lines := bufio.NewScanner(r.Body)
	for lines.Scan() {
		if i := strings.LastIndexByte(lines.Text(), ' '); i > 0 && lines.Text()[0] != '#' {
			value, err := strconv.ParseFloat(lines.Text()[i+1:], 64)
			if err != nil {
				t.Fatal(err)
			}
			all[lines.Text()[:i]] = value
		}
	}
	return all
}
