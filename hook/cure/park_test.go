package cure

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
)

// TestOldParkingEntry: an entry of parking mounts that are gone, whose daemon has ended,
// names device numbers that another daemon's trigger has by now. That stays, and its
// cover.
func TestOldParkingEntry(t *testing.T) {
	const free = 1 << 20 // no superblock has this number
	for name, test := range map[string]struct {
		idle   bool // the trigger has no cover
		number func(t *container.ParkedTrigger, device uint64)
	}{
		"idle, number of the parking mount":   {true, func(t *container.ParkedTrigger, device uint64) { t.Parking = device }},
		"active, number of the parking mount": {false, func(t *container.ParkedTrigger, device uint64) { t.Parking = device }},
		"idle, number of the stale trigger":   {true, func(t *container.ParkedTrigger, device uint64) { t.Stale = device }},
		"active, number of the stale trigger": {false, func(t *container.ParkedTrigger, device uint64) { t.Stale = device }},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCovered(t)
			if test.idle {
				c.do(t, func() error { return unix.Unmount(c.path, unix.MNT_DETACH) })
			}
			before, covers := c.now(t)
			trigger := container.ParkedTrigger{Path: c.path, Parking: free, Stale: free + 1}
			test.number(&trigger, mounts.DeviceOf(before))
			entry := journal.TriggersParked.Of(journal.NewStore(c.dir), c.init, 1<<22+1, 66)
			if err := entry.Save(journal.ParkedTriggers{
				Parking: container.Parking{Daemon: 1<<22 + 1, DaemonStart: 5, Mounts: []container.ParkedTrigger{trigger}},
			}); err != nil {
				t.Fatal(err)
			}
			c.session(t).Recover(t.Context())
			if now, left := c.now(t); now.ID != before.ID || len(left) != len(covers) {
				t.Errorf("mount %d covered by %d, was mount %d covered by %d", now.ID, len(left), before.ID, len(covers))
			}
			if entry.Exists() {
				t.Error("the entry is still there")
			}
		})
	}
}
