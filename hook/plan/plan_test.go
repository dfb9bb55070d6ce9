package plan

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container/containertest"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
)

// catatonic makes the mount one without a master.
func catatonic(m *container.Mount) {
	m.Master = container.Master{Identity: master.Identity{Kind: master.None}}
	m.Options.FD = -1
}

func TestDecide(t *testing.T) {
	for name, test := range map[string]struct {
		mount    container.Mount
		strategy container.Strategy
		restore  bool
		cure     Cure
		reason   string
	}{
		"systemd, stale":                {containertest.SystemdMount(nil), container.Auto, true, Reexecuted, "it was device 0:54"},
		"systemd, restart wanted":       {containertest.SystemdMount(nil), container.RestartOnly, true, Restarted, "it was device 0:54"},
		"systemd, reexec wanted":        {containertest.SystemdMount(nil), container.ReexecOnly, true, Reexecuted, "as requested"},
		"systemd, same number":          {containertest.SystemdMount(containertest.SameDevice), container.Auto, true, Healthy, "old device number"},
		"systemd, same, reexec wanted":  {containertest.SystemdMount(containertest.SameDevice), container.ReexecOnly, true, Reexecuted, "as requested"},
		"systemd, preserved":            {containertest.SystemdMount(containertest.Preserved), container.Auto, true, Preserved, "remembers"},
		"systemd, preserved, confirmed": {containertest.SystemdMount(func(m *container.Mount) { containertest.Preserved(m); m.Confirmed = true }), container.Auto, true, Preserved, "remembers"},
		"systemd, preserved, reexec":    {containertest.SystemdMount(containertest.Preserved), container.ReexecOnly, true, Reexecuted, "as requested"},
		"systemd, not preserved":        {containertest.SystemdMount(func(m *container.Mount) { m.NotPreserved = "taken" }), container.Auto, true, Reexecuted, "taken"},
		"systemd, not preserved, old":   {containertest.SystemdMount(func(m *container.Mount) { m.NotPreserved = "taken" }), container.RestartOnly, true, Restarted, "taken"},
		"systemd, unknown number":       {containertest.SystemdMount(containertest.UnknownDevice), container.Auto, true, Reexecuted, "if systemd remembers another"},
		"systemd, later":                {containertest.SystemdMount(containertest.Late(true, false)), container.Auto, false, Reexecuted, "if systemd remembers another"},
		"systemd, later, waiters":       {containertest.SystemdMount(containertest.Late(true, true)), container.Auto, false, Reexecuted, "if systemd remembers another"},
		"systemd, later, confirmed":     {containertest.SystemdMount(func(m *container.Mount) { containertest.Late(true, false)(m); m.Confirmed = true }), container.Auto, false, Healthy, "earlier run"},
		"systemd, confirmed, waiters":   {containertest.SystemdMount(func(m *container.Mount) { containertest.Late(true, true)(m); m.Confirmed = true }), container.Auto, false, Reexecuted, "if systemd remembers another"},
		"systemd, confirmed, restore":   {containertest.SystemdMount(func(m *container.Mount) { containertest.Late(true, true)(m); m.Confirmed = true }), container.Auto, true, Healthy, "earlier run"},
		"systemd, later, restart":       {containertest.SystemdMount(containertest.Late(true, false)), container.RestartOnly, false, Restarted, "as requested"},
		"systemd, not restored":         {containertest.SystemdMount(containertest.Late(false, false)), container.Auto, false, Healthy, "started here"},
		"systemd, fresh, restart":       {containertest.SystemdMount(containertest.Late(false, false)), container.RestartOnly, false, Healthy, "started here"},
		"systemd, fresh, reexec":        {containertest.SystemdMount(containertest.Late(false, false)), container.ReexecOnly, false, Reexecuted, "as requested"},
		"systemd, catatonic":            {containertest.SystemdMount(catatonic), container.Auto, true, Healthy, "catatonic"},

		"automount, restored":        {containertest.AutomountMount(nil), container.Auto, true, Reloaded, "device and inode"},
		"automount, offset":          {containertest.AutomountMount(func(m *container.Mount) { m.Options.Type = autofs.Offset }), container.Auto, true, Reloaded, ""},
		"automount, indirect":        {containertest.AutomountMount(func(m *container.Mount) { m.Options.Type = autofs.Indirect }), container.Auto, true, Healthy, "has open"},
		"automount, same number":     {containertest.AutomountMount(func(m *container.Mount) { m.Device = 54 }), container.Auto, true, Reloaded, "inode"},
		"automount, confirmed":       {containertest.AutomountMount(func(m *container.Mount) { m.Confirmed = true }), container.Auto, true, Healthy, "earlier run"},
		"automount, covered":         {containertest.AutomountMount(func(m *container.Mount) { m.Covers = []container.Cover{{ID: 7}} }), container.Auto, true, Healthy, "covers it"},
		"automount, parked":          {containertest.AutomountMount(func(m *container.Mount) { m.Parking = true }), container.Auto, false, Reloaded, "inode"},
		"automount, parked above":    {containertest.AutomountMount(func(m *container.Mount) { m.UnderParking, m.Covers = true, []container.Cover{{ID: 7}} }), container.Auto, false, Reloaded, "inode"},
		"automount, executed":        {containertest.AutomountMount(func(m *container.Mount) { m.Master.Executed = true }), container.Auto, false, Healthy, "started here"},
		"automount, executed, asked": {containertest.AutomountMount(func(m *container.Mount) { m.Master.Executed = true }), container.RestartOnly, false, Healthy, "started here"},
		"automount, executed, CRIU":  {containertest.AutomountMount(func(m *container.Mount) { m.Master.Executed = true }), container.Auto, true, Reloaded, ""},
		"automount, no restore":      {containertest.AutomountMount(nil), container.Auto, false, Healthy, "started here"},

		"other":             {containertest.Other(false), container.Auto, true, Unrepaired, "process 102"},
		"other, holding it": {containertest.Other(true), container.Auto, true, Healthy, "a file open on the mount"},
		"no master":         {containertest.SystemdMount(func(m *container.Mount) { m.Master = container.Master{Identity: master.Identity{Kind: master.None}} }), container.Auto, true, Unrepaired, "start the program"},
	} {
		s := &container.Snapshot{PID: 54, Restore: test.restore, Strategy: test.strategy, Mounts: []container.Mount{test.mount}}
		first, again := New(s), New(s)
		if len(first) != 1 || first[0].Cure != test.cure || !strings.Contains(first[0].Reason, test.reason) || first[0].Reason == "" {
			t.Errorf("%s: %+v, want %s because of %q", name, first, test.cure, test.reason)
		}
		if !reflect.DeepEqual(first, again) {
			t.Errorf("%s: another plan for the same snapshot: %v, %v", name, first, again)
		}
	}
}

// TestPlanWaited: a waiter is no reason to re-execute a systemd that was not restored.
// Only the waiter's mount cannot be judged.
func TestPlanWaited(t *testing.T) {
	waited, other := containertest.SystemdMount(containertest.Late(false, true)), containertest.SystemdMount(containertest.Late(false, true))
	waited.Path, other.Path = "/mnt/waited", "/mnt/waited-not"
	s := &container.Snapshot{PID: 54, Mounts: []container.Mount{waited, other}, Waiters: []container.Waiter{{PID: 60, Path: "/mnt/waited/file"}}}
	plan := New(s)
	if plan[0].Cure != Unrepaired || !plan[0].Unjudged || plan[1].Cure != Healthy || plan[1].Unjudged {
		t.Errorf("%+v", plan)
	}
	s.Strategy = container.ReexecOnly
	for _, d := range New(s) {
		if d.Cure != Reexecuted {
			t.Errorf("as requested: %+v", d)
		}
	}
}

// TestPlanLate: in a late repair the container's first process and the daemon itself show
// whether an automount daemon was restored.
func TestPlanLate(t *testing.T) {
	for _, test := range []struct {
		restored, executed bool
		cure               Cure
	}{{true, false, Reloaded}, {true, true, Healthy}, {false, false, Healthy}, {false, true, Healthy}} {
		m := containertest.AutomountMount(func(m *container.Mount) { m.Master.Executed = test.executed })
		for restore, want := range map[bool]Cure{false: test.cure, true: Reloaded} {
			plan := New(&container.Snapshot{Restore: restore, Restored: test.restored, Strategy: container.Auto, Mounts: []container.Mount{m}})
			if plan[0].Cure != want {
				t.Errorf("%+v, restore %v: %s, want %s", test, restore, plan[0].Cure, want)
			}
		}
	}
}

// TestPlanNested: a mount in another mount namespace has the outcome of the main one, or
// cannot be cured.
func TestPlanNested(t *testing.T) {
	nested := func(change func(*container.Mount)) container.Mount {
		m := containertest.SystemdMount(change)
		m.Main, m.Namespace = false, 2
		return m
	}
	healthy := func(m *container.Mount) { m.Device = 54 }
	for name, test := range map[string]struct {
		mounts []container.Mount
		want   []Cure
		reason string // of the last
	}{
		"empty":                       {nil, nil, ""},
		"the main one's mount":        {[]container.Mount{containertest.SystemdMount(nil), nested(nil)}, []Cure{Reexecuted, Reexecuted}, "mount namespace of its systemd"},
		"listed first":                {[]container.Mount{nested(nil), containertest.SystemdMount(nil)}, []Cure{Reexecuted, Reexecuted}, ""},
		"another superblock":          {[]container.Mount{containertest.SystemdMount(nil), nested(func(m *container.Mount) { m.Device = 61 })}, []Cure{Reexecuted, Unrepaired}, "does not show"},
		"the main one is healthy":     {[]container.Mount{containertest.SystemdMount(healthy), nested(nil)}, []Cure{Healthy, Unrepaired}, "does not show"},
		"not in the main one":         {[]container.Mount{nested(nil)}, []Cure{Unrepaired}, "does not show"},
		"healthy without the main":    {[]container.Mount{nested(healthy)}, []Cure{Healthy}, ""},
		"the main one is confirmed":   {[]container.Mount{containertest.SystemdMount(func(m *container.Mount) { m.Confirmed = true }), nested(nil)}, []Cure{Healthy, Healthy}, "mount namespace of its systemd"},
		"automount in a nested one":   {[]container.Mount{func() container.Mount { m := containertest.AutomountMount(nil); m.Main = false; return m }()}, []Cure{Reloaded}, ""},
		"one bad does not hurt other": {[]container.Mount{containertest.Other(false), containertest.SystemdMount(nil)}, []Cure{Unrepaired, Reexecuted}, ""},
	} {
		plan := New(&container.Snapshot{Restore: true, Strategy: container.Auto, Mounts: test.mounts})
		var got []Cure
		for _, d := range plan {
			got = append(got, d.Cure)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		} else if len(plan) > 0 && !strings.Contains(plan[len(plan)-1].Reason, test.reason) {
			t.Errorf("%s: %q, want %q", name, plan[len(plan)-1].Reason, test.reason)
		}
	}
}

// TestPlanOutside: a mount with a master outside is always healthy, and neither opened
// nor replaced.
func TestPlanOutside(t *testing.T) {
	for name, change := range map[string]func(*container.Mount){
		"another number": nil,
		"no images":      containertest.UnknownDevice,
		"restored":       containertest.Late(true, true),
		"catatonic":      func(m *container.Mount) { m.Options.FD = -1 },
		"not preserved":  func(m *container.Mount) { m.NotPreserved = "taken" },
	} {
		m := containertest.SystemdMount(change)
		m.Master.Kind = master.Outside
		for _, restore := range []bool{false, true} {
			for _, strategy := range []container.Strategy{container.Auto, container.ReexecOnly, container.RestartOnly} {
				plan := New(&container.Snapshot{Restore: restore, Strategy: strategy, Mounts: []container.Mount{m}})
				if plan[0].Cure != Healthy || plan[0].Reason != "served from outside the container" {
					t.Errorf("%s, restore %v, %s: %+v", name, restore, strategy, plan[0])
				}
			}
		}
		if picked := ToPreserve([]container.Mount{m}); picked != nil {
			t.Errorf("%s: is to be preserved", name)
		}
		if NeedsRepair(&m) {
			t.Errorf("%s: needs a repair", name)
		}
	}
	if m := containertest.SystemdMount(nil); !NeedsRepair(&m) {
		t.Error("a stale mount of the container's needs no repair")
	}
}

// TestPlanNestedSystemd: mounts of a systemd in a container inside the container get the
// same cures as those of the outer systemd, except that no unit is restarted.
func TestPlanNestedSystemd(t *testing.T) {
	nested := func(change func(*container.Mount)) container.Mount {
		m := containertest.SystemdMount(change)
		m.Namespace, m.Master.PID, m.Master.Nested = 2, 200, true
		return m
	}
	for name, test := range map[string]struct {
		mount    container.Mount
		strategy container.Strategy
		cure     Cure
		reason   string
	}{
		"stale":          {nested(nil), container.Auto, Reexecuted, "it was device"},
		"restart":        {nested(nil), container.RestartOnly, Unrepaired, `(process 200): run "systemctl restart a.automount" there`},
		"unknown number": {nested(containertest.UnknownDevice), container.Auto, Reexecuted, "if systemd remembers"},
		"healthy":        {nested(func(m *container.Mount) { m.Device = 54 }), container.Auto, Healthy, ""},
	} {
		outer := containertest.SystemdMount(func(m *container.Mount) { m.Device = 70 })
		plan := New(&container.Snapshot{Restore: true, Strategy: test.strategy, Mounts: []container.Mount{outer, test.mount}})
		if plan[1].Cure != test.cure || !strings.Contains(plan[1].Reason, test.reason) {
			t.Errorf("%s: %+v, want %s: %q", name, plan[1], test.cure, test.reason)
		}
	}
}

func TestToPreserve(t *testing.T) {
	list := []container.Mount{
		containertest.SystemdMount(nil),
		containertest.SystemdMount(func(m *container.Mount) { m.Device = 54 }),
		containertest.SystemdMount(containertest.UnknownDevice),
		containertest.SystemdMount(func(m *container.Mount) { m.Main = false }),
		containertest.SystemdMount(func(m *container.Mount) { m.Options.Type = autofs.Indirect }),
		containertest.SystemdMount(func(m *container.Mount) { m.Options.Type = autofs.Offset }),
		containertest.AutomountMount(nil),
		containertest.Other(false),
	}
	if got := ToPreserve(list); !slices.Equal(got, []int{0, 5}) {
		t.Errorf("%v", got)
	}
}

// TestPlanConfirmed: a confirmed mount is healthy, whatever the images have, except with
// the strategy reexec.
func TestPlanConfirmed(t *testing.T) {
	for name, m := range map[string]container.Mount{
		"images have another": containertest.SystemdMount(nil),
		"restored":            containertest.SystemdMount(containertest.Late(true, false)),
		"not preserved":       containertest.SystemdMount(func(m *container.Mount) { m.NotPreserved = "taken" }),
		"nested":              containertest.SystemdMount(func(m *container.Mount) { m.Main = false }),
		"automount":           containertest.AutomountMount(nil),
	} {
		m.Confirmed = true
		for _, strategy := range []container.Strategy{container.Auto, container.RestartOnly} {
			for _, restore := range []bool{false, true} {
				s := &container.Snapshot{Restore: restore, Strategy: strategy, Mounts: []container.Mount{m}}
				if plan := New(s); plan[0].Cure != Healthy || !strings.Contains(plan[0].Reason, "earlier run") {
					t.Errorf("%s, %s, restore %v: %+v", name, strategy, restore, plan)
				}
			}
		}
		if picked := ToPreserve([]container.Mount{m}); picked != nil {
			t.Errorf("%s is to be preserved", name)
		}
	}
}
