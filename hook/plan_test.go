package hook

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
)

// systemdMount is one that its systemd does not know: device 54 became 60.
func systemdMount(change func(*Mount)) Mount {
	m := Mount{
		Main: true, Namespace: 1, Path: "/a", Device: 60, DeviceBefore: 54,
		Options: autofs.Options{FD: 9, HasPipe: true, Type: autofs.Direct},
		Master: Master{
			Identity: master.Identity{Kind: master.Systemd, PID: 100, ContainerPID: 1},
			Unit:     "a.automount",
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
	m.Master = Master{Identity: master.Identity{Kind: master.Automount, PID: 101, ContainerPID: 7}, Unit: "autofs.service"}
	if change != nil {
		change(&m)
	}
	return m
}

// aloneMount is one of a daemon that an entrypoint has started.
func aloneMount(change func(*Mount)) Mount {
	m := automountMount(nil)
	m.Master.Unit, m.Master.Alone = "", &Alone{ParentPID: 54, Parent: "sh"}
	if change != nil {
		change(&m)
	}
	return m
}

func foreground(parent string) func(*Mount) {
	return func(m *Mount) { m.Master.Alone = &Alone{Foreground: true, ParentPID: 55, Parent: parent} }
}

func unknown(m *Mount) { m.DeviceBefore = 0 }

func executed(m *Mount) { m.Master.Executed = true }

func same(m *Mount) { m.Device = 54 }

func preserved(m *Mount) { m.Preserved, m.Device = true, 54 }

// late is a mount that a person's repair finds.
func late(restored, waited bool) func(*Mount) {
	return func(m *Mount) { m.DeviceBefore, m.Master.Restored, m.Master.Waited = 0, restored, waited }
}

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
		"systemd, preserved, reexec":   {systemdMount(preserved), ReexecOnly, true, Reexecuted, "as demanded"},
		"systemd, not preserved":       {systemdMount(func(m *Mount) { m.NotPreserved = "taken" }), Auto, true, Reexecuted, "taken"},
		"systemd, not preserved, old":  {systemdMount(func(m *Mount) { m.NotPreserved = "taken" }), RestartOnly, true, Restarted, "taken"},
		"systemd, unknown number":      {systemdMount(unknown), Auto, true, Reexecuted, "if systemd remembers another"},
		"systemd, later":               {systemdMount(late(true, false)), Auto, false, Reexecuted, "if systemd remembers another"},
		"systemd, later, waiters":      {systemdMount(late(false, true)), Auto, false, Reexecuted, "if systemd remembers another"},
		"systemd, later, settled":      {systemdMount(func(m *Mount) { late(true, false)(m); m.Settled = true }), Auto, false, Healthy, "earlier run"},
		"systemd, settled, waiters":    {systemdMount(func(m *Mount) { late(true, true)(m); m.Settled = true }), Auto, false, Reexecuted, "if systemd remembers another"},
		"systemd, settled, restore":    {systemdMount(func(m *Mount) { late(true, true)(m); m.Settled = true }), Auto, true, Healthy, "earlier run"},
		"systemd, later, restart":      {systemdMount(late(true, false)), RestartOnly, false, Restarted, "as demanded"},
		"systemd, never restored":      {systemdMount(late(false, false)), Auto, false, Healthy, "started here"},
		"systemd, never, restart":      {systemdMount(late(false, false)), RestartOnly, false, Healthy, "started here"},
		"systemd, never, reexec":       {systemdMount(late(false, false)), ReexecOnly, false, Reexecuted, "as demanded"},
		"systemd, catatonic": {
			systemdMount(func(m *Mount) { m.Master = Master{Identity: master.Identity{Kind: master.None}}; m.Options.FD = -1 }),
			Auto, true, Healthy, "catatonic",
		},

		"automount, restored":      {automountMount(nil), Auto, true, Respawned, "device and inode"},
		"automount, offset":        {automountMount(func(m *Mount) { m.Options.Type = autofs.Offset }), Auto, true, Respawned, ""},
		"automount, indirect":      {automountMount(func(m *Mount) { m.Options.Type = autofs.Indirect }), Auto, true, Healthy, "descriptor it holds"},
		"automount, same number":   {automountMount(func(m *Mount) { m.Device = 54 }), Auto, true, Respawned, "inode"},
		"automount, no service":    {automountMount(func(m *Mount) { m.Master.Problem = "no systemd" }), Auto, true, Unrepaired, "no systemd"},
		"automount, executed here": {automountMount(executed), Auto, false, Healthy, "started here"},
		"automount, no restore":    {automountMount(nil), Auto, false, Healthy, "started here"},

		"automount, alone":            {aloneMount(nil), Auto, true, Respawned, "device and inode"},
		"automount, alone, executed":  {aloneMount(executed), Auto, false, Healthy, "not restored"},
		"automount, executed, CRIU":   {aloneMount(executed), Auto, true, Respawned, ""},
		"automount, not to be copied": {aloneMount(func(m *Mount) { m.Master.Alone.Obstacle = "a user namespace" }), Auto, true, Unrepaired, "a user namespace: end all"},
		"automount, forced":           {aloneMount(func(m *Mount) { m.Master.Alone.Forced = true }), Auto, true, Unrepaired, "--force"},
		"automount, of a shell":       {aloneMount(foreground("sh")), Auto, true, Unrepaired, `of process 55 ("sh"), which may end with it: if that starts it again, run "autofs-restore-hook repair 54 --strategy restart"`},
		"automount, of a shell, told": {aloneMount(foreground("sh")), RestartOnly, true, Respawned, ""},
		"automount, supervised":       {aloneMount(foreground("s6-supervise")), Auto, true, Respawned, ""},
		"automount, alone, killed":    {aloneMount(func(m *Mount) { m.Master.Alone = &Alone{Killed: true, Foreground: true} }), Auto, false, Respawned, "earlier run"},
		"automount, killed, indirect": {aloneMount(func(m *Mount) { m.Master.Alone = &Alone{Killed: true}; m.Options.Type = autofs.Indirect }), Auto, false, Respawned, "earlier run"},
		"automount, alone, settled":   {aloneMount(func(m *Mount) { m.Settled = true }), Auto, false, Healthy, "earlier run"},
		"automount, alone, indirect":  {aloneMount(func(m *Mount) { m.Options.Type = autofs.Indirect }), Auto, true, Healthy, ""},

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

// TestPlanLate: without CRIU's word the container's first process and the daemon
// itself tell whether an automount daemon was restored.
func TestPlanLate(t *testing.T) {
	for _, test := range []struct {
		restored, executed bool
		cure               Cure
	}{{true, false, Respawned}, {true, true, Healthy}, {false, false, Healthy}, {false, true, Healthy}} {
		m := automountMount(func(m *Mount) { m.Master.Executed = test.executed })
		for restore, want := range map[bool]Cure{false: test.cure, true: Respawned} {
			plan := Plan(&Snapshot{Restore: restore, Restored: test.restored, Strategy: Auto, Mounts: []Mount{m}})
			if plan[0].Cure != want {
				t.Errorf("%+v, restore %v: %s, want %s", test, restore, plan[0].Cure, want)
			}
		}
	}
}

// TestPlanUnstarted: a mount that an earlier run has made catatonic, and whose
// daemon does not start again, is not taken for one that was so before.
func TestPlanUnstarted(t *testing.T) {
	m := systemdMount(func(m *Mount) { m.Master = Master{Identity: master.Identity{Kind: master.None}}; m.Options.FD = -1 })
	for unstarted, want := range map[string]Cure{"": Healthy, `"autofs.service"`: Unrepaired} {
		plan := Plan(&Snapshot{Restore: true, Strategy: Auto, Unstarted: unstarted, Mounts: []Mount{m}})
		if plan[0].Cure != want || !strings.Contains(plan[0].Reason, unstarted) {
			t.Errorf("%q: %+v", unstarted, plan[0])
		}
	}
}

func other(holds bool) Mount {
	return systemdMount(func(m *Mount) {
		m.Master = Master{Identity: master.Identity{Kind: master.Other, PID: 102}, HoldsRoot: holds}
	})
}

// dates sets when the unit became active, the mount and the process were made.

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
		"the main one's mount":        {[]Mount{systemdMount(nil), nested(nil)}, []Cure{Reexecuted, Reexecuted}, "main mount namespace"},
		"listed first":                {[]Mount{nested(nil), systemdMount(nil)}, []Cure{Reexecuted, Reexecuted}, ""},
		"another superblock":          {[]Mount{systemdMount(nil), nested(func(m *Mount) { m.Device = 61 })}, []Cure{Reexecuted, Unrepaired}, "does not show"},
		"the main one is healthy":     {[]Mount{systemdMount(healthy), nested(nil)}, []Cure{Healthy, Unrepaired}, "does not show"},
		"not in the main one":         {[]Mount{nested(nil)}, []Cure{Unrepaired}, "does not show"},
		"healthy without the main":    {[]Mount{nested(healthy)}, []Cure{Healthy}, ""},
		"the main one is settled":     {[]Mount{systemdMount(func(m *Mount) { m.Settled = true }), nested(nil)}, []Cure{Healthy, Healthy}, "main mount namespace"},
		"automount in a nested one":   {[]Mount{func() Mount { m := automountMount(nil); m.Main = false; return m }()}, []Cure{Respawned}, ""},
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
