package lab

import (
	"testing"
	"time"
)

// Hidden are on mounts beneath the upper mount of [Stacked]. They can be read
// when that is gone.
var Hidden = []Access{
	{Path: Stacked + "/lower", Content: "lower", About: "on a mount hidden by another"},
	{Path: Stacked + "/lower-nested/hidden", Content: "nested in lower", About: "on a mount nested in a hidden one"},
}

// Populate brings the automounts into the states that they have at the
// checkpoint:
//
//	Covered  autofs < tmpfs (a service works in it)
//	Stacked  autofs < tmpfs "lower" < tmpfs "upper", each with a tmpfs in one of its folders
//	Indirect key "active" mounted
//
// All others are idle. An active direct mount of automount could not be dumped:
// the daemon holds a file on the covered root, which CRIU refuses.
func (c *Container) Populate(t testing.TB) {
	t.Helper()
	c.Run(t, "sh", "-ec", `
		cat /indirect/active/marker
		cd /mnt/stacked/
		echo lower >lower
		mkdir lower-nested
		mount -t tmpfs -o size=1m lower-nested lower-nested
		echo nested in lower >lower-nested/hidden
		mount -t tmpfs -o size=1m upper /mnt/stacked
		cd /mnt/stacked/
		echo upper >upper
		mkdir nested
		mount -t tmpfs -o size=1m nested nested
		echo nested in upper >nested/file
	`)
	c.Settle(t)
}

// Settle waits until systemd has digested all that happened: its view of the
// mounts follows the kernel's with a delay.
func (c *Container) Settle(t testing.TB) map[string]Unit {
	t.Helper()
	before := c.Units(t)
	for deadline := time.Now().Add(bootLimit); time.Now().Before(deadline); {
		time.Sleep(50 * time.Millisecond)
		after := c.Units(t)
		if len(UnitChanges(before, after)) == 0 && c.Run(t, "systemctl", "list-jobs", "--no-legend") == "" {
			return after
		}
		before = after
	}
	t.Fatalf("container %s: its units did not come to rest within %s", c.ID, bootLimit)
	return nil
}

// Unhide unmounts what hides [Hidden].
func (c *Container) Unhide(t testing.TB) {
	t.Helper()
	c.Run(t, "umount", Stacked+"/nested", Stacked)
}

// Uncover unmounts, after Unhide, all that covers [Uncovered], so that the next
// access reaches the automounts themselves.
func (c *Container) Uncover(t testing.TB) {
	t.Helper()
	c.Run(t, "systemctl", "stop", "holder.service")
	c.Run(t, "umount", Stacked+"/lower-nested", Stacked, Covered)
	c.Settle(t)
}
