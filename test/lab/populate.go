package lab

import (
	"strings"
	"testing"
	"time"
)

// Kept are the files on covering mounts, by path, with their content: they
// exist nowhere else, so a mount that was lost took its file with it.
var Kept = map[string]string{
	Covered + "/" + Marker:         Covered,
	Stacked + "/upper":             "upper",
	Stacked + "/nested/file":       "nested in upper",
	Indirect + "/active/" + Marker: Indirect + "/active",
}

// KeptBelow are files that are hidden by the upper mount on [Stacked].
var KeptBelow = map[string]string{
	Stacked + "/lower":               "lower",
	Stacked + "/lower-nested/hidden": "nested in lower",
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

// CheckKept reports every file on a covering mount that is not what it was.
func (c *Container) CheckKept(t testing.TB, files map[string]string) {
	t.Helper()
	for path, want := range files {
		o := c.Touch(t, path, TouchLimit)
		if o.Hung || o.Failed || strings.TrimSpace(o.Output) != want {
			t.Errorf("%s: %s, want %q", path, o, want)
		}
	}
}

// Uncover unmounts all that covers [Stacked] and [Covered], so that the next
// access reaches the automounts themselves.
func (c *Container) Uncover(t testing.TB) {
	t.Helper()
	c.Run(t, "systemctl", "stop", "holder.service")
	c.Run(t, "umount", Stacked+"/nested", Stacked, Stacked+"/lower-nested", Stacked, Covered)
	c.Settle(t)
}
