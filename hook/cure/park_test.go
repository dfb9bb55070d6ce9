package cure

import (
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"

	"golang.org/x/sys/unix"
)

// TestOldParkingEntry: an entry of removed parking mounts, whose daemon has ended, has a
// device number that now belongs to another daemon's trigger. The trigger and its cover
// stay.
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
			before, covers := c.current(t)
			trigger := container.ParkedTrigger{Path: c.path, Parking: free, Stale: free + 1}
			test.number(&trigger, mounts.DeviceOf(before))
			entry := journal.TriggerParkings.Of(journal.NewStore(c.dir), c.init, 1<<22+1, 66)
			if err := entry.Save(journal.TriggerParking{
				Parking: container.Parking{Daemon: 1<<22 + 1, DaemonStart: 5, Mounts: []container.ParkedTrigger{trigger}},
			}); err != nil {
				t.Fatal(err)
			}
			c.session(t).Recover(t.Context())
			if now, left := c.current(t); now.ID != before.ID || len(left) != len(covers) {
				t.Errorf("mount %d covered by %d, was mount %d covered by %d", now.ID, len(left), before.ID, len(covers))
			}
			if entry.Exists() {
				t.Error("the entry still exists")
			}
		})
	}
}
