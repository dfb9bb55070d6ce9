package hook

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
)

// TestToPreserveWaiters: what somebody waits on is left to be told.
func TestToPreserveWaiters(t *testing.T) {
	at := func(path string) Mount { return systemdMount(func(m *Mount) { m.Path = path }) }
	list := []Mount{at("/a"), at("/a b"), at("/a/b"), at("/c")}
	for name, test := range map[string]struct {
		paths []string
		want  []int
	}{
		"nobody":        {nil, []int{0, 1, 2, 3}},
		"on it":         {[]string{"/c"}, []int{0, 1, 2}},
		"below it":      {[]string{"/c/x/y"}, []int{0, 1, 2}},
		"on both":       {[]string{"/a/b"}, []int{1, 3}},
		"a longer name": {[]string{"/cc", "/a b c"}, []int{0, 1, 2, 3}},
		"unknown place": {[]string{""}, []int{0, 1, 2, 3}},
		"all":           {[]string{"/c", "/a b/", "/a/b/c"}, nil},
	} {
		var waiters []Waiter
		for i, path := range test.paths {
			waiters = append(waiters, Waiter{PID: i + 1, Path: path})
		}
		if got := toPreserve(list, waiters); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

// TestPlanRepair: a person's repair tries to preserve before it tells.
func TestPlanRepair(t *testing.T) {
	nested := systemdMount(func(m *Mount) { m.Main, m.Namespace = false, 2 })
	indirect := systemdMount(func(m *Mount) { m.Options.Type = autofs.Indirect; m.Path, m.Device = "/i", 61 })
	waiting := []Waiter{{PID: 7, Path: "/a"}}
	for name, test := range map[string]struct {
		strategy Strategy
		mounts   []Mount
		waiters  []Waiter
		want     []Cure
		reason   string // of the first
	}{
		"nothing":               {Auto, nil, nil, nil, ""},
		"stale":                 {Auto, []Mount{systemdMount(nil)}, nil, []Cure{Preserved}, "if device number 0:54 can be had"},
		"stale, only preserve":  {PreserveOnly, []Mount{systemdMount(nil)}, nil, []Cure{Preserved}, "can be had"},
		"stale, only retell":    {RetellOnly, []Mount{systemdMount(nil)}, nil, []Cure{Retold}, "remembers device 0:54"},
		"stale, only restart":   {RestartOnly, []Mount{systemdMount(nil)}, nil, []Cure{Restarted}, "remembers device 0:54"},
		"in every namespace":    {Auto, []Mount{systemdMount(nil), nested}, nil, []Cure{Preserved, Preserved}, "can be had"},
		"somebody waits":        {Auto, []Mount{systemdMount(nil), nested}, waiting, []Cure{Retold, Retold}, "remembers"},
		"unknown number":        {Auto, []Mount{systemdMount(unknown)}, nil, []Cure{Restarted}, "older device"},
		"as it was":             {Auto, []Mount{systemdMount(func(m *Mount) { m.Device = 54 })}, nil, []Cure{Healthy}, "old device number"},
		"beside others":         {Auto, []Mount{automountMount(func(m *Mount) { m.Device = 62 }), systemdMount(nil), indirect}, nil, []Cure{Reloaded, Preserved, Retold}, ""},
		"preserved by a moment": {Auto, []Mount{systemdMount(func(m *Mount) { m.Preserved, m.Device = true, 54 })}, nil, []Cure{Preserved}, "that systemd remembers"},
	} {
		s := &Snapshot{Restore: true, Strategy: test.strategy, Mounts: test.mounts, Waiters: test.waiters}
		plan := planRepair(s)
		var got []Cure
		for _, d := range plan {
			got = append(got, d.Cure)
		}
		if !slices.Equal(got, test.want) || len(plan) > 0 && !strings.Contains(plan[0].Reason, test.reason) {
			t.Errorf("%s: %+v, want %v because of %q", name, plan, test.want, test.reason)
		}
	}
}

// TestConcludePlanned: an inspection found work, or none; who still waits keeps
// a repair from being whole.
func TestConcludePlanned(t *testing.T) {
	for _, test := range []struct {
		cures          []Cure
		planned, stuck bool
		err            string
		want           Outcome
		status         int
	}{
		{nil, true, false, "", NothingToDo, 0},
		{[]Cure{Healthy}, true, false, "", NothingToDo, 0},
		{[]Cure{Retold, Healthy}, true, false, "", Planned, 0},
		{[]Cure{Unrepaired}, true, false, "", Planned, 0},
		{[]Cure{Restarted, Unrepaired}, true, false, "", Planned, 0},
		{[]Cure{Retold}, true, false, "broken", Failed, 1},
		{[]Cure{Retold}, false, true, "", Partial, 3},
		{[]Cure{Retold, Healthy}, false, true, "", Partial, 3},
		{[]Cure{Retold, Unrepaired}, false, true, "", Partial, 3},
		{[]Cure{Unrepaired}, false, true, "", Failed, 1},
		{[]Cure{Retold}, false, true, "broken", Failed, 1},
	} {
		r := Report{Container: "c1", Error: test.err, Planned: test.planned, stuck: test.stuck}
		for _, c := range test.cures {
			r.Mounts = append(r.Mounts, MountReport{Outcome: c})
		}
		r.conclude()
		if r.Outcome != test.want || r.Outcome.ExitStatus() != test.status {
			t.Errorf("%+v: %s (%d)", test, r.Outcome, r.Outcome.ExitStatus())
		}
		if says := strings.HasPrefix(r.Summary(), "c1: nothing was changed; planned"); says != (test.planned && test.err == "") {
			t.Errorf("%+v: %q", test, r.Summary())
		}
	}
}

func TestCollect(t *testing.T) {
	var told []error
	notes := []string{"before"}
	warn := collect(func(err error) { told = append(told, err) }, &notes)
	first, second := errors.New("first"), errors.New("second")
	warn(first)
	warn(second)
	if !slices.Equal(notes, []string{"before", "first", "second"}) || !slices.Equal(told, []error{first, second}) {
		t.Errorf("noted %q, told %v", notes, told)
	}
}

// TestRestartInstead: what could not be told is restarted in every namespace, or
// left, as the administrator wants.
func TestRestartInstead(t *testing.T) {
	for strategy, want := range map[Strategy]Cure{Auto: Restarted, RetellOnly: Unrepaired} {
		other := systemdMount(func(m *Mount) { m.Device = 61 })
		done := systemdMount(nil)
		w := &work{
			snapshot: &Snapshot{Strategy: strategy, Mounts: []Mount{systemdMount(nil), systemdMount(func(m *Mount) { m.Main = false }), other, done}},
			plan:     []Decision{{0, Retold, "stale"}, {1, Retold, ""}, {2, Retold, "other"}, {3, Preserved, "done"}},
		}
		w.restartInstead(0, "too old")
		if !slices.Equal(w.plan, []Decision{{0, want, "stale; too old"}, {1, want, "too old"}, {2, Retold, "other"}, {3, Preserved, "done"}}) {
			t.Errorf("%s: %+v", strategy, w.plan)
		}
	}
}

// TestRetellNothing: no systemd is told anything if nothing is to be told in the
// main namespace.
func TestRetellNothing(t *testing.T) {
	nested := systemdMount(func(m *Mount) { m.Main = false; m.Master.Identity = master.Identity{Kind: master.Systemd, PID: 1} })
	w := &work{snapshot: &Snapshot{Mounts: []Mount{nested, automountMount(nil)}}, plan: []Decision{{0, Retold, ""}, {1, Reloaded, ""}}}
	if w.retell(context.Background()) {
		t.Error("something was tried")
	}
}

// TestKnowsSystemd: the mark of a run that told systemd numbers stands until all
// of its mounts are cured.
func TestKnowsSystemd(t *testing.T) {
	w := &work{snapshot: &Snapshot{Mounts: []Mount{systemdMount(nil), systemdMount(nil), automountMount(nil)}}}
	for _, test := range []struct {
		cures []Cure
		want  bool
	}{
		{[]Cure{Retold, Healthy, Reloaded}, true},
		{[]Cure{Retold, Healthy, Unrepaired}, true},
		{[]Cure{Retold, Unrepaired, Healthy}, false},
		{nil, true},
	} {
		w.plan = nil
		for i, c := range test.cures {
			w.plan = append(w.plan, Decision{Mount: i, Cure: c})
		}
		if w.knowsSystemd() != test.want {
			t.Errorf("%v: %v", test.cures, !test.want)
		}
	}
}
