package hook

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
)

func TestDecide(t *testing.T) {
	for name, test := range map[string]struct {
		mount    Mount
		strategy Strategy
		restore  bool
		cure     Cure
		reason   string
	}{
		"systemd, stale":               {systemdMount(nil), Auto, true, Reexecuted, "it was device 0:54"},
		"systemd, restart wanted":      {systemdMount(nil), RestartOnly, true, Restarted, "it was device 0:54"},
		"systemd, reexec wanted":       {systemdMount(nil), ReexecOnly, true, Reexecuted, "as demanded"},
		"systemd, same number":         {systemdMount(same), Auto, true, Healthy, "old device number"},
		"systemd, same, reexec wanted": {systemdMount(same), ReexecOnly, true, Reexecuted, "as demanded"},
		"systemd, preserved":           {systemdMount(preserved), Auto, true, Preserved, "remembers"},
		"systemd, preserved, settled":  {systemdMount(func(m *Mount) { preserved(m); m.Confirmed = true }), Auto, true, Preserved, "remembers"},
		"systemd, preserved, reexec":   {systemdMount(preserved), ReexecOnly, true, Reexecuted, "as demanded"},
		"systemd, not preserved":       {systemdMount(func(m *Mount) { m.NotPreserved = "taken" }), Auto, true, Reexecuted, "taken"},
		"systemd, not preserved, old":  {systemdMount(func(m *Mount) { m.NotPreserved = "taken" }), RestartOnly, true, Restarted, "taken"},
		"systemd, unknown number":      {systemdMount(unknown), Auto, true, Reexecuted, "if systemd remembers another"},
		"systemd, later":               {systemdMount(late(true, false)), Auto, false, Reexecuted, "if systemd remembers another"},
		"systemd, later, waiters":      {systemdMount(late(true, true)), Auto, false, Reexecuted, "if systemd remembers another"},
		"systemd, later, settled":      {systemdMount(func(m *Mount) { late(true, false)(m); m.Confirmed = true }), Auto, false, Healthy, "earlier run"},
		"systemd, settled, waiters":    {systemdMount(func(m *Mount) { late(true, true)(m); m.Confirmed = true }), Auto, false, Reexecuted, "if systemd remembers another"},
		"systemd, settled, restore":    {systemdMount(func(m *Mount) { late(true, true)(m); m.Confirmed = true }), Auto, true, Healthy, "earlier run"},
		"systemd, later, restart":      {systemdMount(late(true, false)), RestartOnly, false, Restarted, "as demanded"},
		"systemd, never restored":      {systemdMount(late(false, false)), Auto, false, Healthy, "started here"},
		"systemd, never, restart":      {systemdMount(late(false, false)), RestartOnly, false, Healthy, "started here"},
		"systemd, never, reexec":       {systemdMount(late(false, false)), ReexecOnly, false, Reexecuted, "as demanded"},
		"systemd, catatonic": {
			systemdMount(func(m *Mount) { m.Master = Master{Identity: master.Identity{Kind: master.None}}; m.Options.FD = -1 }),
			Auto, true, Healthy, "catatonic",
		},

		"automount, restored":       {automountMount(nil), Auto, true, Reloaded, "device and inode"},
		"automount, offset":         {automountMount(func(m *Mount) { m.Options.Type = autofs.Offset }), Auto, true, Reloaded, ""},
		"automount, indirect":       {automountMount(func(m *Mount) { m.Options.Type = autofs.Indirect }), Auto, true, Healthy, "descriptor it holds"},
		"automount, same number":    {automountMount(func(m *Mount) { m.Device = 54 }), Auto, true, Reloaded, "inode"},
		"automount, settled":        {automountMount(func(m *Mount) { m.Confirmed = true }), Auto, true, Healthy, "earlier run"},
		"automount, covered":        {automountMount(func(m *Mount) { m.Covers = []Cover{{ID: 7}} }), Auto, true, Healthy, "covers it"},
		"automount, parked":         {automountMount(func(m *Mount) { m.Parking = true }), Auto, false, Reloaded, "inode"},
		"automount, parked above":   {automountMount(func(m *Mount) { m.UnderParking, m.Covers = true, []Cover{{ID: 7}} }), Auto, false, Reloaded, "inode"},
		"automount, executed":       {automountMount(func(m *Mount) { m.Master.Executed = true }), Auto, false, Healthy, "started here"},
		"automount, executed, told": {automountMount(func(m *Mount) { m.Master.Executed = true }), RestartOnly, false, Healthy, "started here"},
		"automount, executed, CRIU": {automountMount(func(m *Mount) { m.Master.Executed = true }), Auto, true, Reloaded, ""},
		"automount, no restore":     {automountMount(nil), Auto, false, Healthy, "started here"},

		"other":               {other(false), Auto, true, Unrepaired, "process 102"},
		"other, holding it":   {other(true), Auto, true, Healthy, "holds the mount open"},
		"nobody, not by CRIU": {systemdMount(func(m *Mount) { m.Master = Master{Identity: master.Identity{Kind: master.None}} }), Auto, true, Unrepaired, "start the program"},
	} {
		s := &Snapshot{PID: 54, Restore: test.restore, Strategy: test.strategy, Mounts: []Mount{test.mount}}
		first, again := Plan(s), Plan(s)
		if len(first) != 1 || first[0].Mount != 0 || first[0].Cure != test.cure || !strings.Contains(first[0].Reason, test.reason) || first[0].Reason == "" {
			t.Errorf("%s: %+v, want %s because of %q", name, first, test.cure, test.reason)
		}
		if !reflect.DeepEqual(first, again) {
			t.Errorf("%s: another plan for the same snapshot: %v, %v", name, first, again)
		}
	}
}

// TestPlanWaited: a process that waits does not make a systemd suspect that was never
// restored. Only its own mount cannot be judged.
func TestPlanWaited(t *testing.T) {
	waited, other := systemdMount(late(false, true)), systemdMount(late(false, true))
	waited.Path, other.Path = "/mnt/waited", "/mnt/waited-not"
	s := &Snapshot{PID: 54, Mounts: []Mount{waited, other}, Waiters: []Waiter{{PID: 60, Path: "/mnt/waited/file"}}}
	plan := Plan(s)
	if plan[0].Cure != Unrepaired || !strings.HasPrefix(plan[0].Reason, CannotJudge) || plan[1].Cure != Healthy {
		t.Errorf("%+v", plan)
	}
	s.Strategy = ReexecOnly
	for _, d := range Plan(s) {
		if d.Cure != Reexecuted {
			t.Errorf("as demanded: %+v", d)
		}
	}
}

// TestPlanLate: without CRIU's word the container's first process and the daemon
// itself tell whether an automount daemon was restored.
func TestPlanLate(t *testing.T) {
	for _, test := range []struct {
		restored, executed bool
		cure               Cure
	}{{true, false, Reloaded}, {true, true, Healthy}, {false, false, Healthy}, {false, true, Healthy}} {
		m := automountMount(func(m *Mount) { m.Master.Executed = test.executed })
		for restore, want := range map[bool]Cure{false: test.cure, true: Reloaded} {
			plan := Plan(&Snapshot{Restore: restore, Restored: test.restored, Strategy: Auto, Mounts: []Mount{m}})
			if plan[0].Cure != want {
				t.Errorf("%+v, restore %v: %s, want %s", test, restore, plan[0].Cure, want)
			}
		}
	}
}

// TestPlanNested: other mount namespaces follow the main one, or cannot be cured.
func TestPlanNested(t *testing.T) {
	nested := func(change func(*Mount)) Mount {
		m := systemdMount(change)
		m.Main, m.Namespace = false, 2
		return m
	}
	healthy := func(m *Mount) { m.Device = 54 }
	for name, test := range map[string]struct {
		mounts []Mount
		want   []Cure
		reason string // of the last
	}{
		"empty":                       {nil, nil, ""},
		"the main one's mount":        {[]Mount{systemdMount(nil), nested(nil)}, []Cure{Reexecuted, Reexecuted}, "mount namespace of its systemd"},
		"listed first":                {[]Mount{nested(nil), systemdMount(nil)}, []Cure{Reexecuted, Reexecuted}, ""},
		"another superblock":          {[]Mount{systemdMount(nil), nested(func(m *Mount) { m.Device = 61 })}, []Cure{Reexecuted, Unrepaired}, "does not show"},
		"the main one is healthy":     {[]Mount{systemdMount(healthy), nested(nil)}, []Cure{Healthy, Unrepaired}, "does not show"},
		"not in the main one":         {[]Mount{nested(nil)}, []Cure{Unrepaired}, "does not show"},
		"healthy without the main":    {[]Mount{nested(healthy)}, []Cure{Healthy}, ""},
		"the main one is settled":     {[]Mount{systemdMount(func(m *Mount) { m.Confirmed = true }), nested(nil)}, []Cure{Healthy, Healthy}, "mount namespace of its systemd"},
		"automount in a nested one":   {[]Mount{func() Mount { m := automountMount(nil); m.Main = false; return m }()}, []Cure{Reloaded}, ""},
		"one bad does not hurt other": {[]Mount{other(false), systemdMount(nil)}, []Cure{Unrepaired, Reexecuted}, ""},
	} {
		plan := Plan(&Snapshot{Restore: true, Strategy: Auto, Mounts: test.mounts})
		var got []Cure
		for i, d := range plan {
			got = append(got, d.Cure)
			if d.Mount != i {
				t.Errorf("%s: decision %d is about mount %d", name, i, d.Mount)
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		} else if len(plan) > 0 && !strings.Contains(plan[len(plan)-1].Reason, test.reason) {
			t.Errorf("%s: %q, want %q", name, plan[len(plan)-1].Reason, test.reason)
		}
	}
}

// TestPlanOutside: whatever is known of a mount that is served from outside, it is
// healthy, and neither opened nor replaced.
func TestPlanOutside(t *testing.T) {
	for name, change := range map[string]func(*Mount){
		"another number": nil,
		"no images":      unknown,
		"restored":       late(true, true),
		"catatonic":      func(m *Mount) { m.Options.FD = -1 },
		"not preserved":  func(m *Mount) { m.NotPreserved = "taken" },
	} {
		m := systemdMount(change)
		m.Master.Kind = master.Outside
		for _, restore := range []bool{false, true} {
			for _, strategy := range []Strategy{Auto, ReexecOnly, RestartOnly} {
				plan := Plan(&Snapshot{Restore: restore, Strategy: strategy, Mounts: []Mount{m}})
				if plan[0].Cure != Healthy || plan[0].Reason != "served from outside the container" {
					t.Errorf("%s, restore %v, %s: %+v", name, restore, strategy, plan[0])
				}
			}
		}
		if picked := toPreserve([]Mount{m}); picked != nil {
			t.Errorf("%s: is to be preserved", name)
		}
		if needsRepair(&m) {
			t.Errorf("%s: needs a repair", name)
		}
	}
	if m := systemdMount(nil); !needsRepair(&m) {
		t.Error("a stale mount of the container's needs no repair")
	}
}

// TestPlanNestedSystemd: the mounts of a systemd in a container inside the container
// are decided as those of the outer one, but that no unit is restarted.
func TestPlanNestedSystemd(t *testing.T) {
	nested := func(change func(*Mount)) Mount {
		m := systemdMount(change)
		m.Namespace, m.Master.PID, m.Master.Nested = 2, 200, true
		return m
	}
	for name, test := range map[string]struct {
		mount    Mount
		strategy Strategy
		cure     Cure
		reason   string
	}{
		"stale":          {nested(nil), Auto, Reexecuted, "it was device"},
		"restart":        {nested(nil), RestartOnly, Unrepaired, `(process 200): run "systemctl restart a.automount" there`},
		"unknown number": {nested(unknown), Auto, Reexecuted, "if systemd remembers"},
		"healthy":        {nested(func(m *Mount) { m.Device = 54 }), Auto, Healthy, ""},
	} {
		outer := systemdMount(func(m *Mount) { m.Device = 70 })
		plan := Plan(&Snapshot{Restore: true, Strategy: test.strategy, Mounts: []Mount{outer, test.mount}})
		if plan[1].Cure != test.cure || !strings.Contains(plan[1].Reason, test.reason) {
			t.Errorf("%s: %+v, want %s: %q", name, plan[1], test.cure, test.reason)
		}
	}
}

func TestToPreserve(t *testing.T) {
	list := []Mount{
		systemdMount(nil),
		systemdMount(func(m *Mount) { m.Device = 54 }),
		systemdMount(unknown),
		systemdMount(func(m *Mount) { m.Main = false }),
		systemdMount(func(m *Mount) { m.Options.Type = autofs.Indirect }),
		systemdMount(func(m *Mount) { m.Options.Type = autofs.Offset }),
		automountMount(nil),
		other(false),
	}
	if got := toPreserve(list); !slices.Equal(got, []int{0, 5}) {
		t.Errorf("%v", got)
	}
}

// TestPlanSettled: a settled mount is healthy whatever images say, unless a person
// demands a look.
func TestPlanSettled(t *testing.T) {
	for name, m := range map[string]Mount{
		"images have another": systemdMount(nil),
		"restored":            systemdMount(late(true, false)),
		"not preserved":       systemdMount(func(m *Mount) { m.NotPreserved = "taken" }),
		"nested":              systemdMount(func(m *Mount) { m.Main = false }),
		"automount":           automountMount(nil),
	} {
		m.Confirmed = true
		for _, strategy := range []Strategy{Auto, RestartOnly} {
			for _, restore := range []bool{false, true} {
				s := &Snapshot{Restore: restore, Strategy: strategy, Mounts: []Mount{m}}
				if plan := Plan(s); plan[0].Cure != Healthy || !strings.Contains(plan[0].Reason, "earlier run") {
					t.Errorf("%s, %s, restore %v: %+v", name, strategy, restore, plan)
				}
			}
		}
		if picked := toPreserve([]Mount{m}); picked != nil {
			t.Errorf("%s is to be preserved", name)
		}
	}
}
