package hook

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// systemdMount is one that its systemd does not know: device 54 became 60.
func systemdMount(change func(*Mount)) Mount {
	m := Mount{
		Main: true, Namespace: 1, Path: "/a", Device: 60, DeviceBefore: 54,
		Options: autofs.Options{FD: 9, HasPipe: true, Type: autofs.Direct},
		Master: Master{
			Identity: master.Identity{Kind: master.Systemd, PID: 100, ContainerPID: 1},
			Unit:     "a.automount", UnitActive: true,
		},
	}
	if change != nil {
		change(&m)
	}
	return m
}

// automountMount is one of a daemon that a service runs.
func automountMount(change func(*Mount)) Mount {
	m := systemdMount(nil)
	m.Master = Master{Identity: master.Identity{Kind: master.Automount, PID: 101, ContainerPID: 7}, Unit: "autofs.service", UnitActive: true}
	if change != nil {
		change(&m)
	}
	return m
}

func unknown(m *Mount) { m.DeviceBefore = 0 }

func TestDecide(t *testing.T) {
	for name, test := range map[string]struct {
		mount    Mount
		strategy Strategy
		restore  bool
		cure     Cure
		reason   string
	}{
		"systemd, stale":              {systemdMount(nil), Auto, true, Retold, "remembers device 0:54"},
		"systemd, restart wanted":     {systemdMount(nil), RestartOnly, true, Restarted, "remembers device 0:54"},
		"systemd, retell wanted":      {systemdMount(nil), RetellOnly, true, Retold, "remembers device 0:54"},
		"systemd, preserve wanted":    {systemdMount(nil), PreserveOnly, true, Unrepaired, "--images"},
		"systemd, same number":        {systemdMount(func(m *Mount) { m.Device = 54 }), Auto, true, Healthy, "old device number"},
		"systemd, preserved":          {systemdMount(func(m *Mount) { m.Preserved = true; m.Device = 54 }), Auto, true, Preserved, "remembers"},
		"systemd, preserved, settled": {systemdMount(func(m *Mount) { m.Preserved, m.Settled = true, true; m.Device = 54 }), Auto, true, Preserved, "remembers"},
		"systemd, not preserved":      {systemdMount(func(m *Mount) { m.NotPreserved = "taken" }), Auto, true, Retold, "taken"},
		"systemd, only to preserve":   {systemdMount(func(m *Mount) { m.NotPreserved = "taken" }), PreserveOnly, true, Unrepaired, "taken"},
		"systemd, not preserved, old": {systemdMount(func(m *Mount) { m.NotPreserved = "taken" }), RestartOnly, true, Restarted, "taken"},
		"systemd does not answer":     {systemdMount(func(m *Mount) { m.Master.Problem = "silent" }), Auto, true, Unrepaired, "silent"},
		"systemd, silent, undated":    {systemdMount(func(m *Mount) { unknown(m); m.Master.Problem, m.Master.Unanswered = "silent", true }), Auto, false, Unrepaired, "cannot be judged now: silent"},
		"systemd, no such unit":       {systemdMount(func(m *Mount) { unknown(m); m.Master.Problem = "no unit" }), Auto, false, Unrepaired, "no unit"},
		"systemd, healthy, silent":    {systemdMount(func(m *Mount) { m.Device = 54; m.Master.Problem = "silent" }), Auto, true, Healthy, ""},
		"systemd, inactive unit":      {systemdMount(func(m *Mount) { m.Master.UnitActive = false }), Auto, true, Unrepaired, `"systemctl start a.automount"`},
		"systemd, unknown number":     {systemdMount(unknown), Auto, true, Restarted, "after its unit became active"},
		"systemd, unknown, retell":    {systemdMount(unknown), RetellOnly, false, Unrepaired, "--images"},
		"systemd, as old as its unit": {systemdMount(dates(noon, noon)), Auto, false, Healthy, "as old as its unit"},
		"systemd, within the slack":   {systemdMount(dates(noon, noon.Add(clockSlack))), Auto, false, Healthy, "as old as its unit"},
		"systemd, younger":            {systemdMount(dates(noon, noon.Add(clockSlack+1))), Auto, false, Restarted, "after its unit"},
		"systemd, no date of it":      {systemdMount(dates(noon, time.Time{})), Auto, false, Unrepaired, "cannot be judged now: it could not be opened"},
		"systemd, no date of unit":    {systemdMount(dates(time.Time{}, noon)), Auto, false, Unrepaired, "cannot be judged now: systemd does not say"},
		"systemd, no date, a restore": {systemdMount(dates(noon, time.Time{})), Auto, true, Restarted, ""},
		"systemd, no date, wanted":    {systemdMount(dates(noon, time.Time{})), RestartOnly, false, Restarted, ""},
		"systemd, images beat dates": {systemdMount(func(m *Mount) {
			dates(noon, noon)(m)
			m.DeviceBefore = 54
		}), Auto, true, Retold, "remembers device"},
		"systemd, catatonic": {
			systemdMount(func(m *Mount) { m.Master = Master{Identity: master.Identity{Kind: master.None}}; m.Options.FD = -1 }),
			Auto, true, Healthy, "catatonic",
		},

		"automount, restored":       {automountMount(nil), Auto, true, Reloaded, "device and inode"},
		"automount, offset":         {automountMount(func(m *Mount) { m.Options.Type = autofs.Offset }), Auto, true, Reloaded, ""},
		"automount, indirect":       {automountMount(func(m *Mount) { m.Options.Type = autofs.Indirect }), Auto, true, Healthy, "descriptor it holds"},
		"automount, same number":    {automountMount(func(m *Mount) { m.Device = 54 }), Auto, true, Reloaded, "inode"},
		"automount, settled":        {automountMount(func(m *Mount) { m.Settled = true }), Auto, true, Healthy, "earlier run"},
		"automount, covered":        {automountMount(func(m *Mount) { m.Covers = []Cover{{ID: 7}} }), Auto, true, Healthy, "covers it"},
		"automount, parked":         {automountMount(func(m *Mount) { m.Parking = true }), Auto, false, Reloaded, "inode"},
		"automount, parked above":   {automountMount(func(m *Mount) { m.UnderParking, m.Covers = true, []Cover{{ID: 7}} }), Auto, false, Reloaded, "inode"},
		"automount, later":          {automountMount(nil), Auto, false, Reloaded, "inode"},
		"automount, executed":       {automountMount(func(m *Mount) { m.Master.Executed = true }), Auto, false, Healthy, "started here"},
		"automount, executed, told": {automountMount(func(m *Mount) { m.Master.Executed = true }), RestartOnly, false, Reloaded, ""},
		"automount, executed, CRIU": {automountMount(func(m *Mount) { m.Master.Executed = true }), Auto, true, Reloaded, ""},
		"systemd, executed again":   {systemdMount(func(m *Mount) { m.Master.Executed = true }), Auto, false, Retold, ""},

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

// TestPlanFreshContainer: where the first process was started by a runtime, the
// daemons were not restored.
func TestPlanFreshContainer(t *testing.T) {
	for executed, want := range map[bool]Cure{true: Healthy, false: Reloaded} {
		plan := Plan(&Snapshot{Executed: executed, Strategy: Auto, Mounts: []Mount{automountMount(nil)}})
		if plan[0].Cure != want {
			t.Errorf("first process executed: %t: %s, want %s", executed, plan[0].Cure, want)
		}
	}
}

func other(holds bool) Mount {
	return systemdMount(func(m *Mount) {
		m.Master = Master{Identity: master.Identity{Kind: master.Other, PID: 102}, HoldsRoot: holds}
	})
}

// dates sets when the unit became active and the mount was made.
func dates(unit, mount time.Time) func(*Mount) {
	return func(m *Mount) {
		m.DeviceBefore = 0
		m.Master.UnitSince, m.Created = unit, mount
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
		"the main one's mount":        {[]Mount{systemdMount(nil), nested(nil)}, []Cure{Retold, Retold}, "mount namespace of its systemd"},
		"listed first":                {[]Mount{nested(nil), systemdMount(nil)}, []Cure{Retold, Retold}, ""},
		"another superblock":          {[]Mount{systemdMount(nil), nested(func(m *Mount) { m.Device = 61 })}, []Cure{Retold, Unrepaired}, "does not show"},
		"the main one is healthy":     {[]Mount{systemdMount(healthy), nested(nil)}, []Cure{Healthy, Unrepaired}, "does not show"},
		"not in the main one":         {[]Mount{nested(nil)}, []Cure{Unrepaired}, "does not show"},
		"healthy without the main":    {[]Mount{nested(healthy)}, []Cure{Healthy}, ""},
		"inactive unit, nested":       {[]Mount{systemdMount(nil), nested(func(m *Mount) { m.Master.UnitActive = false })}, []Cure{Retold, Retold}, ""},
		"the main one not curable":    {[]Mount{systemdMount(func(m *Mount) { m.Master.UnitActive = false }), nested(nil)}, []Cure{Unrepaired, Unrepaired}, ""},
		"automount in a nested one":   {[]Mount{func() Mount { m := automountMount(nil); m.Main = false; return m }()}, []Cure{Reloaded}, ""},
		"one bad does not hurt other": {[]Mount{other(false), systemdMount(nil)}, []Cure{Unrepaired, Retold}, ""},
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
		"no dates":       unknown,
		"younger":        dates(noon, noon.Add(time.Hour)),
		"catatonic":      func(m *Mount) { m.Options.FD = -1 },
		"a problem":      func(m *Mount) { m.Master.Problem = "silent" },
		"not preserved":  func(m *Mount) { m.NotPreserved = "taken" },
	} {
		m := systemdMount(change)
		m.Master.Kind, m.Master.ContainerPID = master.Outside, 0
		for _, restore := range []bool{false, true} {
			for _, strategy := range []Strategy{Auto, PreserveOnly, RetellOnly, RestartOnly} {
				s := &Snapshot{Restore: restore, Strategy: strategy, Mounts: []Mount{m}}
				for _, plan := range [][]Decision{Plan(s), planRepair(s)} {
					if plan[0].Cure != Healthy || plan[0].Reason != "served from outside the container" {
						t.Errorf("%s, restore %v, %s: %+v", name, restore, strategy, plan[0])
					}
				}
			}
		}
		if picked := toPreserve([]Mount{m}, nil); picked != nil {
			t.Errorf("%s: is to be preserved", name)
		}
		if m.needsRepair() {
			t.Errorf("%s: needs a repair", name)
		}
	}
	if m := systemdMount(nil); !m.needsRepair() {
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
		"stale":          {nested(nil), Auto, Retold, "remembers"},
		"restart":        {nested(nil), RestartOnly, Unrepaired, `(process 200): run "systemctl restart a.automount" there`},
		"unknown number": {nested(unknown), Auto, Unrepaired, "restart a.automount"},
		"healthy":        {nested(func(m *Mount) { m.Device = 54 }), Auto, Healthy, ""},
	} {
		outer := systemdMount(func(m *Mount) { m.Device = 70 })
		plan := Plan(&Snapshot{Restore: true, Strategy: test.strategy, Mounts: []Mount{outer, test.mount}})
		if plan[1].Cure != test.cure || !strings.Contains(plan[1].Reason, test.reason) {
			t.Errorf("%s: %+v, want %s: %q", name, plan[1], test.cure, test.reason)
		}
	}
}

// TestWaitersInside: a process that waits on a mount that is served from outside is
// not the container's concern.
func TestWaitersInside(t *testing.T) {
	at := func(path string, kind master.Kind) Mount {
		return Mount{Path: path, Master: Master{Identity: master.Identity{Kind: kind}}}
	}
	list := []Mount{
		at("/a", master.Systemd), at("/a/net", master.Outside), at("/a/net/own", master.Automount),
		at("/both", master.Outside), at("/both", master.Systemd),
	}
	for path, want := range map[string]bool{
		"/a/x": true, "/a/net": false, "/a/net/x": false, "/a/net/own/x": true, "/a/network": true, "/both/x": true, "/elsewhere": true, "": true,
	} {
		if got := waitersInside([]Waiter{{PID: 1, Path: path}}, list); (len(got) == 1) != want {
			t.Errorf("%q: %v, want it counted: %v", path, got, want)
		}
	}
	for _, list := range [][]Mount{{at("/a", master.Outside), at("/b", master.Outside)}, {at("/a", master.Outside)}} {
		if got := waitersInside([]Waiter{{PID: 1}}, list); len(got) != 0 {
			t.Errorf("only mounts outside: %v", got)
		}
	}
	if got := waitersInside([]Waiter{{PID: 1}}, nil); len(got) != 1 {
		t.Errorf("no mounts: %v", got)
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
	if got := toPreserve(list, nil); !slices.Equal(got, []int{0, 5}) {
		t.Errorf("%v", got)
	}
}
