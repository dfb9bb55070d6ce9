package cure

import (
	"context"
	"slices"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container/containertest"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/systemd"
)

// newReexecution returns a repair with mounts of a systemd: one in the main namespace, the
// same in another namespace, a second one, and a preserved one. change changes the first
// three.
func newReexecution(strategy container.Strategy, change func(*container.Mount)) *Repair {
	nested := containertest.SystemdMount(change)
	nested.Main, nested.Namespace = false, 2
	second := containertest.SystemdMount(change)
	second.Path, second.Device, second.Options.PipeInode = "/b", 61, 8
	done := containertest.SystemdMount(containertest.Preserved)
	done.Path, done.Options.PipeInode = "/c", 9
	r := &Repair{snapshot: &container.Snapshot{PID: 54, Strategy: strategy, Mounts: []container.Mount{containertest.SystemdMount(change), nested, second, done}}}
	for i, cure := range []plan.Cure{plan.Reexecuted, plan.Reexecuted, plan.Reexecuted, plan.Preserved} {
		r.Plan = append(r.Plan, plan.Decision{Cure: cure, Reason: "old"})
		r.snapshot.Mounts[i].Master.PID = 100
	}
	for i := range 2 {
		r.snapshot.Mounts[i].Options.PipeInode = 7
	}
	return r
}

func curesOf(r *Repair) []plan.Cure {
	var list []plan.Cure
	for _, d := range r.Plan {
		list = append(list, d.Cure)
	}
	return list
}

// TestRestartInstead: without a re-execution a stale mount is restarted in every namespace;
// one that is not known to be stale is unrepaired.
func TestRestartInstead(t *testing.T) {
	for name, test := range map[string]struct {
		strategy container.Strategy
		change   func(*container.Mount)
		want     plan.Cure
		reason   string
	}{
		"stale by the images": {container.Auto, nil, plan.Restarted, "too old"},
		"not preserved":       {container.Auto, func(m *container.Mount) { m.NotPreserved = "taken" }, plan.Restarted, "taken; too old"},
		"only reexec":         {container.ReexecOnly, nil, plan.Unrepaired, "too old"},
		"unknown":             {container.Auto, containertest.UnknownDevice, plan.Unrepaired, `too old; whether systemd knows its device is unknown: if accesses hang, run "autofs-restore-hook repair 54 --strategy restart"`},
	} {
		r := newReexecution(test.strategy, test.change)
		for _, i := range []int{0, 3} {
			r.restartInstead(i, "too old")
		}
		if got := curesOf(r); !slices.Equal(got, []plan.Cure{test.want, test.want, plan.Reexecuted, plan.Preserved}) || r.Plan[0].Reason != test.reason || r.Plan[0].Unjudged != (name == "unknown") {
			t.Errorf("%s: %v because of %q", name, got, r.Plan[0].Reason)
		}
	}
}

// TestDecideFromState: systemd's state overrides the plan.
func TestDecideFromState(t *testing.T) {
	stale := func(pipe uint64) systemd.UnitState {
		return systemd.UnitState{Unit: "x.automount", Pipe: pipe, OldDevice: 50, Device: 60}
	}
	right := func(pipe uint64) systemd.UnitState {
		return systemd.UnitState{Unit: "x.automount", Pipe: pipe, OldDevice: 60, Device: 60}
	}
	odd := func(pipe uint64) systemd.UnitState { return systemd.UnitState{Pipe: pipe, Problem: "odd"} }
	for name, test := range map[string]struct {
		units []systemd.UnitState
		want  []plan.Cure
	}{
		"all stale":              {[]systemd.UnitState{stale(7), stale(8), stale(9)}, []plan.Cure{plan.Reexecuted, plan.Reexecuted, plan.Reexecuted, plan.Reexecuted}},
		"all right":              {[]systemd.UnitState{right(7), right(8), right(9)}, []plan.Cure{plan.Healthy, plan.Healthy, plan.Healthy, plan.Preserved}},
		"one stale":              {[]systemd.UnitState{right(7), stale(8), right(9)}, []plan.Cure{plan.Healthy, plan.Healthy, plan.Reexecuted, plan.Preserved}},
		"no such units":          {nil, []plan.Cure{plan.Unrepaired, plan.Unrepaired, plan.Unrepaired, plan.Preserved}},
		"a problem with the one": {[]systemd.UnitState{odd(7), stale(8), odd(9)}, []plan.Cure{plan.Unrepaired, plan.Unrepaired, plan.Reexecuted, plan.Preserved}},
	} {
		r := newReexecution(container.Auto, containertest.UnknownDevice)
		r.decideFromState([]int{0, 2, 3}, &systemd.StateEdit{Units: test.units})
		if got := curesOf(r); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
		for i := range r.Plan {
			m := &r.snapshot.Mounts[i]
			if m.Confirmed != (r.Plan[i].Cure == plan.Healthy || r.Plan[i].Cure == plan.Preserved && len(test.units) > 0 && test.units[len(test.units)-1].Problem == "") {
				t.Errorf("%s: %d: %s, confirmed %v", name, i, r.Plan[i].Cure, m.Confirmed)
			}
			if want := map[plan.Cure]uint64{plan.Reexecuted: 50, plan.Healthy: 60}[r.Plan[i].Cure]; want != 0 && m.DeviceBefore != want {
				t.Errorf("%s: %d: was device %d, want %d", name, i, m.DeviceBefore, want)
			}
		}
	}
}

// TestReexecuteNothing: a systemd without mounts in the main namespace is not re-executed.
func TestReexecuteNothing(t *testing.T) {
	nested := containertest.SystemdMount(func(m *container.Mount) {
		m.Main = false
		m.Master.Identity = master.Identity{Kind: master.Systemd, PID: 1}
	})
	r := &Repair{snapshot: &container.Snapshot{Mounts: []container.Mount{nested, containertest.AutomountMount(nil)}}, Plan: []plan.Decision{{Cure: plan.Reexecuted}, {Cure: plan.Reloaded}}}
	if r.reexecuteAll(context.Background()) {
		t.Error("re-executed")
	}
}
