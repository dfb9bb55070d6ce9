package hook

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
)

// FuzzState feeds what an OCI runtime, and through annotations a container
// image, writes on a hook's standard input.
func FuzzState(f *testing.F) {
	f.Add("createRuntime", []byte(`{"ociVersion":"1.2.0","id":"c1","status":"stopped","pid":12,"bundle":"/b"}`))
	f.Add("poststart", []byte(`{"id":"../../etc","pid":-1,"annotations":{"a":"b"}}`))
	f.Add("poststop", []byte(`[]`))
	f.Fuzz(func(t *testing.T, stage string, data []byte) {
		state, err := ReadState(bytes.NewReader(data))
		if err != nil {
			if strings.ContainsAny(err.Error(), "\x00\n") {
				t.Errorf("an error of several lines: %q", err)
			}
			return
		}
		e, ours, err := StageEvent(stage, state)
		switch {
		case err != nil && ours:
			t.Errorf("an error and work: %+v", e)
		case ours && e.PID <= 0:
			t.Errorf("work without a process: %+v", e)
		case ours && e.ImageDir != "":
			t.Errorf("images named by a container: %+v", e)
		}
	})
}

// FuzzReportName: whatever a container is called, its report stays in the folder
// of reports.
func FuzzReportName(f *testing.F) {
	for _, name := range []string{"c1", "../x", "a/b", ".", "..", "", "\x00", "a\nb", strings.Repeat("x", 300)} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		dir := t.TempDir()
		if err := NewStore(dir).SaveReport(fileName(name), nil); err != nil {
			return
		}
		names, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(names) != 1 || filepath.Base(names[0]) != "reports" {
			t.Fatalf("container %q: written to %q (%v)", name, names, err)
		}
		entries, err := os.ReadDir(names[0])
		if err != nil || len(entries) != 1 || !entries[0].Type().IsRegular() {
			t.Fatalf("container %q: reports %v (%v)", name, entries, err)
		}
	})
}

// FuzzHandover feeds handovers: they are root's, but may be cut or of another
// release.
func FuzzHandover(f *testing.F) {
	f.Add([]byte(`{"version":1,"moment":"preserve","init":"1-2","devices":[{"path":"/a","device":54,"fd":3,"systemd":true}]}`))
	f.Add([]byte(`{"version":1,"roots":[{"namespace":1,"mount":2,"index":-1}],"holder":{"pid":-1}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var r Handover
		if err := handovers.parse(data, &r); err != nil {
			return
		}
		list := []Mount{{Path: "/a", Device: 54}, {Path: "", Device: 0}}
		r.Describe(list, 0)
		for _, number := range r.Wanted() {
			if number == 0 && len(r.Devices) == 0 {
				t.Error("a number without a mount")
			}
		}
	})
}

// FuzzPlan plans for any snapshot: there is one decision for each mount, and none
// without a reason that has one.
func FuzzPlan(f *testing.F) {
	for _, s := range []Snapshot{
		{Mounts: []Mount{{Path: "/a", Main: true, Options: autofs.Options{FD: 3, HasPipe: true}, Master: Master{Identity: master.Identity{Kind: master.Systemd}, Restored: true}}}},
		{Restore: true, Strategy: RestartOnly, Mounts: []Mount{{Path: "/a", DeviceBefore: 54, Device: 55, Master: Master{Identity: master.Identity{Kind: master.Automount}}}}},
	} {
		data, err := json.Marshal(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var s Snapshot
		if json.Unmarshal(data, &s) != nil {
			return
		}
		plan := Plan(&s)
		if len(plan) != len(s.Mounts) {
			t.Fatalf("%d decisions for %d mounts", len(plan), len(s.Mounts))
		}
		for i, d := range plan {
			if d.Mount != i {
				t.Errorf("decision %d is about mount %d", i, d.Mount)
			}
			switch d.Cure {
			case Healthy, Preserved, Reexecuted, Restarted, Reloaded:
			case Unrepaired:
				if d.Reason == "" && s.Mounts[i].NotPreserved == "" {
					t.Errorf("unrepaired without a reason: %+v", s.Mounts[i])
				}
			default:
				t.Errorf("cure %q", d.Cure)
			}
			if s.Mounts[i].Confirmed && !s.Mounts[i].Preserved && !s.Mounts[i].Master.Waited && s.Strategy != ReexecOnly && d.Cure != Healthy && s.Mounts[i].Master.Kind != master.None && s.Mounts[i].Master.Kind != master.Other {
				t.Errorf("a mount that an earlier run repaired: %q", d.Cure)
			}
		}
	})
}
