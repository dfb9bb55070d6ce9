package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container/containertest"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/stage"
)

func TestConclude(t *testing.T) {
	for _, test := range []struct {
		cures  []plan.Cure
		err    string
		want   Outcome
		status int
	}{
		{nil, "", NothingToDo, 0},
		{[]plan.Cure{plan.Healthy, plan.Healthy}, "", NothingToDo, 0},
		{[]plan.Cure{plan.Preserved}, "", Repaired, 0},
		{[]plan.Cure{plan.Reexecuted, plan.Healthy}, "", Repaired, 0},
		{[]plan.Cure{plan.Restarted, plan.Reloaded}, "", Repaired, 0},
		{[]plan.Cure{plan.Restarted, plan.Unrepaired}, "", Partial, 3},
		{[]plan.Cure{plan.Unrepaired}, "", Failed, 1},
		{[]plan.Cure{plan.Healthy, plan.Unrepaired}, "", Failed, 1},
		{[]plan.Cure{plan.Restarted}, "broken", Failed, 1},
		{nil, "broken", Failed, 1},
	} {
		r := Report{Error: test.err}
		for _, c := range test.cures {
			r.Mounts = append(r.Mounts, Mount{Outcome: c})
		}
		r.conclude()
		if r.Outcome != test.want || r.Outcome.ExitStatus() != test.status {
			t.Errorf("%v, error %q: %s (%d), want %s (%d)", test.cures, test.err, r.Outcome, r.Outcome.ExitStatus(), test.want, test.status)
		}
	}
}

func TestFinish(t *testing.T) {
	for name, test := range map[string]struct {
		err       error
		noProcess bool
	}{
		"none":       {nil, false},
		"any":        {errors.New("any"), false},
		"no process": {fmt.Errorf("process 5: %w", fs.ErrNotExist), true},
	} {
		r := Report{}
		r.Finish(time.Now().Add(-1500*time.Microsecond), test.err)
		if r.NoProcess != test.noProcess || (r.Error != "") != (test.err != nil) || r.DurationMS < 1.5 || r.DurationMS > 1000 {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func hostileReport() *Report {
	m := containertest.SystemdMount(func(m *container.Mount) {
		m.Path, m.Master.Unit, m.Namespace = containertest.HostileName, containertest.HostileName, 4026531841
		m.Below = []container.Cover{{Type: "tmpfs", Path: containertest.HostileName}, {Type: "ext4", Path: "/b"}}
	})
	free := containertest.Other(false)
	free.DeviceBefore, free.Master.Identity = 0, master.Identity{Kind: master.None}
	r := &Report{
		Schema: Schema, Version: "v1-test", Time: time.Date(2026, 11, 26, 16, 0, 0, 0, time.UTC), Container: "c1", PID: 42, Trigger: "criu:post-resume", Stage: stage.Repair, DurationMS: 1.25,
		Waiting: []container.Waiter{{PID: 7, Command: containertest.HostileName, Path: containertest.HostileName}, {PID: 8, Command: "ls"}},
	}
	r.Mounts = append(r.Mounts, newMount(&m, plan.Decision{Cure: plan.Restarted, Reason: "because"}), newMount(&free, plan.Decision{Cure: plan.Unrepaired, Reason: containertest.HostileName}))
	r.conclude()
	return r
}

// golden is the JSON form of hostileReport. HOSTILE stands for the hostile name.
const golden = `{
  "schema": 1,
  "version": "v1-test",
  "time": "2026-11-26T16:00:00Z",
  "container": "c1",
  "pid": 42,
  "trigger": "criu:post-resume",
  "moment": "repair",
  "duration_ms": 1.25,
  "outcome": "partial",
  "mounts": [
    {
      "path": HOSTILE,
      "mount_namespace": 4026531841,
      "type": "direct",
      "master": {
        "kind": "systemd",
        "pid": 100,
        "unit": HOSTILE
      },
      "device_before": "0:54",
      "device_now": "0:60",
      "outcome": "restarted",
      "reason": "because",
      "covered_by": [
        "tmpfs on /a\n\u001b[2J` + "\u202e" + `\ufffd b",
        "ext4 on /b"
      ],
      "waiters_released": 0
    },
    {
      "path": "/a",
      "mount_namespace": 1,
      "type": "direct",
      "master": {
        "kind": "none",
        "pid": 0
      },
      "device_now": "0:60",
      "outcome": "unrepaired",
      "reason": HOSTILE,
      "covered_by": [],
      "waiters_released": 0
    }
  ],
  "waiting": [
    {
      "pid": 7,
      "command": HOSTILE,
      "path": HOSTILE
    },
    {
      "pid": 8,
      "command": "ls"
    }
  ]
}
`

func TestReportJSON(t *testing.T) {
	data, err := hostileReport().Encode()
	want := strings.ReplaceAll(golden, "HOSTILE", `"/a\n\u001b[2J`+"\u202e"+`\ufffd b"`)
	if err != nil || string(data) != want {
		t.Errorf("%v:\n%s\nwant\n%s", err, data, want)
	}
	var again Report
	if err := json.Unmarshal(data, &again); err != nil || again.Outcome != Partial || len(again.Mounts) != 2 {
		t.Errorf("%+v, %v", again, err)
	}
	empty, err := (&Report{Mounts: []Mount{}}).Encode()
	if err != nil || !strings.Contains(string(empty), `"mounts": []`) {
		t.Errorf("%s, %v", empty, err)
	}
}

// TestOneLine: no text from a container starts a line or a control sequence.
func TestOneLine(t *testing.T) {
	r := hostileReport()
	r.Error = containertest.HostileName
	if s := r.Summary(); strings.ContainsAny(s, "\n\x1b") || !strings.HasPrefix(s, `c1: failed in 1.2 ms: "/a\n\x1b`) {
		t.Errorf("%q", s)
	}
	var out strings.Builder
	if err := r.Table(&out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	// Two mounts, each in a namespace of its own and with details; two waiters and the summary.
	if len(lines) != (1+1+1+2)+(1+1+1+1)+2+1 || strings.ContainsAny(out.String(), "\x1b\u202e") || !utf8.ValidString(out.String()) {
		t.Errorf("%d lines:\n%s", len(lines), out.String())
	}
	for _, l := range lines {
		if n := utf8.RuneCountInString(l); n > tableWidth {
			t.Errorf("%d columns: %s", n, l)
		}
	}
	groups := r.Unrepaired()
	if len(groups) != 1 || groups[0].Reason != containertest.HostileName || len(groups[0].Paths) != 1 {
		t.Errorf("%+v", groups)
	}
}

// TestConcludePlanned: the outcome of an inspection, and of a repair after which
// processes still wait.
func TestConcludePlanned(t *testing.T) {
	for _, test := range []struct {
		cures          []plan.Cure
		planned, stuck bool
		err            string
		want           Outcome
		status         int
	}{
		{nil, true, false, "", NothingToDo, 0},
		{[]plan.Cure{plan.Healthy}, true, false, "", NothingToDo, 0},
		{[]plan.Cure{plan.Reexecuted, plan.Healthy}, true, false, "", Planned, 0},
		{[]plan.Cure{plan.Unrepaired}, true, false, "", Planned, 0},
		{[]plan.Cure{plan.Restarted, plan.Unrepaired}, true, false, "", Planned, 0},
		{[]plan.Cure{plan.Reexecuted}, true, false, "broken", Failed, 1},
		{[]plan.Cure{plan.Reexecuted}, false, true, "", Partial, 3},
		{[]plan.Cure{plan.Reexecuted, plan.Healthy}, false, true, "", Partial, 3},
		{[]plan.Cure{plan.Reexecuted, plan.Unrepaired}, false, true, "", Partial, 3},
		{[]plan.Cure{plan.Unrepaired}, false, true, "", Failed, 1},
		{[]plan.Cure{plan.Reexecuted}, false, true, "broken", Failed, 1},
	} {
		r := Report{Container: "c1", Error: test.err, Planned: test.planned, Stuck: test.stuck}
		for _, c := range test.cures {
			r.Mounts = append(r.Mounts, Mount{Outcome: c})
		}
		r.conclude()
		if r.Outcome != test.want || r.Outcome.ExitStatus() != test.status {
			t.Errorf("%+v: %s (%d)", test, r.Outcome, r.Outcome.ExitStatus())
		}
		if unchanged := strings.HasPrefix(r.Summary(), "c1: nothing was changed in "); unchanged != (test.want == Planned) {
			t.Errorf("%+v: %q", test, r.Summary())
		}
	}
}

func TestCollectWarnings(t *testing.T) {
	var logged []error
	collected := []string{"before"}
	warn := CollectWarnings(func(err error) { logged = append(logged, err) }, &collected)
	first, second := errors.New("first"), errors.New("second")
	warn(first)
	warn(second)
	if !slices.Equal(collected, []string{"before", "first", "second"}) || !slices.Equal(logged, []error{first, second}) {
		t.Errorf("collected %q, logged %v", collected, logged)
	}
}

// TestSummary: automounts are counted once, however many mount namespaces show them.
func TestSummary(t *testing.T) {
	at := func(path string, namespace uint64, outcome plan.Cure) Mount {
		return Mount{Path: path, DeviceNow: "0:" + path, MountNamespace: namespace, Outcome: outcome}
	}
	for want, r := range map[string]*Report{
		"c1: 2 automounts repaired in 1.0 ms: 1 preserved, 1 reloaded, 1 healthy": {Mounts: []Mount{
			at("/a", 1, plan.Preserved), at("/b", 1, plan.Reloaded), at("/c", 1, plan.Healthy), at("/a", 2, plan.Preserved),
		}},
		"c1: 1 automount repaired in 1.0 ms: 1 reexecuted":                           {Mounts: []Mount{at("/a", 1, plan.Reexecuted)}},
		"c1: 1 of 2 automounts repaired in 1.0 ms: 1 restarted, 1 unrepaired":        {Mounts: []Mount{at("/a", 1, plan.Restarted), at("/b", 1, plan.Restarted), at("/b", 2, plan.Unrepaired)}},
		"c1: 0 of 1 automount repaired in 1.0 ms: 1 unrepaired":                      {Mounts: []Mount{at("/a", 1, plan.Unrepaired)}},
		"c1: 1 automount repaired in 1.0 ms, but processes still wait: 1 reexecuted": {Stuck: true, Mounts: []Mount{at("/a", 1, plan.Reexecuted)}},
		"c1: nothing to do in 1.0 ms, done by an earlier call: 1 reexecuted":         {Repeated: true, Mounts: []Mount{at("/a", 1, plan.Reexecuted)}},
		"c1: nothing to do in 1.0 ms: 1 healthy":                                     {Mounts: []Mount{at("/a", 1, plan.Healthy), at("/a", 2, plan.Healthy)}},
		"c1: no automounts: nothing to do in 1.0 ms":                                 {},
		"c1: nothing was changed in 1.0 ms, planned: 1 reexecuted":                   {Planned: true, Mounts: []Mount{at("/a", 1, plan.Reexecuted)}},
		`c1: failed in 1.0 ms: "no such process"`:                                    {Error: "no such process"},
	} {
		r.Container, r.DurationMS = "c1", 1
		if got := r.Summary(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
