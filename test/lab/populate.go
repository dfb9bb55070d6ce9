package lab

import (
	"maps"
	"testing"
	"time"
)

// Hidden are accesses to mounts beneath the upper mount of [Stacked], which can be read
// when that is unmounted.
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

// Settle waits until systemd has processed all mount events: its view of the mounts
// follows the kernel's with a delay.
func (c *Container) Settle(t testing.TB) map[string]Unit {
	t.Helper()
	before, _ := c.unitsAndJobs(t)
	for deadline := time.Now().Add(bootLimit); time.Now().Before(deadline); {
		time.Sleep(50 * time.Millisecond)
		after, jobs := c.unitsAndJobs(t)
		if jobs == 0 && maps.Equal(before, after) {
			return after
		}
		before = after
	}
	t.Fatalf("container %s: its units did not settle within %s", c.ID, bootLimit)
	return nil
}

// Unhide unmounts the mount over [Hidden].
func (c *Container) Unhide(t testing.TB) {
	t.Helper()
	c.Run(t, "umount", Stacked+"/nested", Stacked)
}

// Uncover unmounts, after Unhide, the covers of [Uncovered], so that the next access
// reaches the automounts themselves.
func (c *Container) Uncover(t testing.TB) {
	t.Helper()
	c.Run(t, "systemctl", "stop", "worker.service")
	c.Run(t, "umount", Stacked+"/lower-nested", Stacked, Covered)
	c.Settle(t)
}
