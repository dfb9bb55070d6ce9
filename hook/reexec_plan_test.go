package hook

import (
	"context"
	"slices"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
)

// work with systemd's mounts: the main one, the same in another namespace, a
// second one, and one that is preserved.
func reexecWork(strategy Strategy, change func(*Mount)) *repairWork {
	nested := systemdMount(change)
	nested.Main, nested.Namespace = false, 2
	second := systemdMount(change)
	second.Path, second.Device, second.Options.PipeInode = "/b", 61, 8
	done := systemdMount(preserved)
	done.Path, done.Options.PipeInode = "/c", 9
	w := &repairWork{snapshot: &Snapshot{PID: 54, Strategy: strategy, Mounts: []Mount{systemdMount(change), nested, second, done}}}
	for i, cure := range []Cure{Reexecuted, Reexecuted, Reexecuted, Preserved} {
		w.plan = append(w.plan, Decision{Mount: i, Cure: cure, Reason: "old"})
		w.snapshot.Mounts[i].Master.PID = 100
	}
	for i := range 2 {
		w.snapshot.Mounts[i].Options.PipeInode = 7
	}
	return w
}

func curesOf(w *repairWork) []Cure {
	var list []Cure
	for _, d := range w.plan {
		list = append(list, d.Cure)
	}
	return list
}

// TestRestartInstead: what is known to be stale is restarted in every namespace
// if its systemd does not re-execute itself; what is not known is left.
func TestRestartInstead(t *testing.T) {
	for name, test := range map[string]struct {
		strategy Strategy
		change   func(*Mount)
		want     Cure
		reason   string
	}{
		"stale by the images": {Auto, nil, Restarted, "too old"},
		"not preserved":       {Auto, func(m *Mount) { m.NotPreserved = "taken" }, Restarted, "taken; too old"},
		"only reexec":         {ReexecOnly, nil, Unrepaired, "too old"},
		"unknown":             {Auto, unknown, Unrepaired, `cannot be judged now: too old; whether systemd knows its device is unknown: if accesses hang, run "autofs-restore-hook repair 54 --strategy restart"`},
	} {
		w := reexecWork(test.strategy, test.change)
		for _, i := range []int{0, 3} {
			w.restartInstead(i, "too old")
		}
		if got := curesOf(w); !slices.Equal(got, []Cure{test.want, test.want, Reexecuted, Preserved}) || w.plan[0].Reason != test.reason {
			t.Errorf("%s: %v because of %q", name, got, w.plan[0].Reason)
		}
	}
}

// TestJudge: what systemd's state says decides, whatever was planned.
func TestJudge(t *testing.T) {
	stale := func(pipe uint64) master.UnitState {
		return master.UnitState{Unit: "x.automount", Pipe: pipe, Was: 50, Device: 60}
	}
	right := func(pipe uint64) master.UnitState {
		return master.UnitState{Unit: "x.automount", Pipe: pipe, Was: 60, Device: 60}
	}
	odd := func(pipe uint64) master.UnitState { return master.UnitState{Pipe: pipe, Problem: "odd"} }
	for name, test := range map[string]struct {
		units []master.UnitState
		want  []Cure
	}{
		"all stale":              {[]master.UnitState{stale(7), stale(8), stale(9)}, []Cure{Reexecuted, Reexecuted, Reexecuted, Reexecuted}},
		"all right":              {[]master.UnitState{right(7), right(8), right(9)}, []Cure{Healthy, Healthy, Healthy, Preserved}},
		"one stale":              {[]master.UnitState{right(7), stale(8), right(9)}, []Cure{Healthy, Healthy, Reexecuted, Preserved}},
		"no such units":          {nil, []Cure{Unrepaired, Unrepaired, Unrepaired, Preserved}},
		"a problem with the one": {[]master.UnitState{odd(7), stale(8), odd(9)}, []Cure{Unrepaired, Unrepaired, Reexecuted, Preserved}},
	} {
		w := reexecWork(Auto, unknown)
		w.judge([]int{0, 2, 3}, &master.StateEdit{Units: test.units})
		if got := curesOf(w); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
		for i := range w.plan {
			m := &w.snapshot.Mounts[i]
			if m.Confirmed != (w.plan[i].Cure == Healthy || w.plan[i].Cure == Preserved && len(test.units) > 0 && test.units[len(test.units)-1].Problem == "") {
				t.Errorf("%s: %d: %s, settled %v", name, i, w.plan[i].Cure, m.Confirmed)
			}
			if want := map[Cure]uint64{Reexecuted: 50, Healthy: 60}[w.plan[i].Cure]; want != 0 && m.DeviceBefore != want {
				t.Errorf("%s: %d: was device %d, want %d", name, i, m.DeviceBefore, want)
			}
		}
	}
}

// TestReexecuteNothing: no systemd re-executes itself if nothing of it is in the
// main namespace.
func TestReexecuteNothing(t *testing.T) {
	nested := systemdMount(func(m *Mount) { m.Main = false; m.Master.Identity = master.Identity{Kind: master.Systemd, PID: 1} })
	w := &repairWork{snapshot: &Snapshot{Mounts: []Mount{nested, automountMount(nil)}}, plan: []Decision{{0, Reexecuted, ""}, {1, Reloaded, ""}}}
	if w.reexecute(context.Background()) {
		t.Error("something was tried")
	}
}
