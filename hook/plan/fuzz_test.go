package plan

import (
	"encoding/json"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
)

// FuzzPlan: every plan has one decision for each mount, and every unrepaired mount has a
// reason.
func FuzzPlan(f *testing.F) {
	for _, s := range []container.Snapshot{
		{Mounts: []container.Mount{{Path: "/a", Main: true, Options: autofs.Options{FD: 3, HasPipe: true}, Master: container.Master{Identity: master.Identity{Kind: master.Systemd}, Restored: true}}}},
		{Restore: true, Strategy: container.RestartOnly, Mounts: []container.Mount{{Path: "/a", DeviceBefore: 54, Device: 55, Master: container.Master{Identity: master.Identity{Kind: master.Automount}}}}},
	} {
		data, err := json.Marshal(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var s container.Snapshot
		if json.Unmarshal(data, &s) != nil {
			return
		}
		plan := New(&s)
		if len(plan) != len(s.Mounts) {
			t.Fatalf("%d decisions for %d mounts", len(plan), len(s.Mounts))
		}
		for i, d := range plan {
			switch d.Cure {
			case Healthy, Preserved, Reexecuted, Restarted, Reloaded:
			case Unrepaired:
				if d.Reason == "" && s.Mounts[i].NotPreserved == "" {
					t.Errorf("unrepaired without a reason: %+v", s.Mounts[i])
				}
			default:
				t.Errorf("cure %q", d.Cure)
			}
			if s.Mounts[i].Confirmed && !s.Mounts[i].Preserved && !s.Mounts[i].Master.Waited && s.Strategy != container.ReexecOnly && d.Cure != Healthy && s.Mounts[i].Master.Kind != master.None && s.Mounts[i].Master.Kind != master.Other {
				t.Errorf("a mount that an earlier run repaired: %q", d.Cure)
			}
		}
	})
}
