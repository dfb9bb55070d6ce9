package e2e

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// expiring are accesses whose mounts expire when they are unused for a second.
var expiring = []lab.Access{
	{Path: lab.Idle + "/" + lab.Marker, Content: lab.Idle, About: "systemd automount, idle"},
	{Path: lab.Blank + "/" + lab.Marker, Content: lab.Blank, About: "systemd automount, blank in its path"},
	{Path: lab.Direct + "/" + lab.Marker, Content: lab.Direct, About: "automount, direct map"},
	{Path: lab.Direct2 + "/" + lab.Marker, Content: lab.Direct2, About: "automount, direct map"},
	{Path: lab.Indirect + "/active/" + lab.Marker, Content: lab.Indirect + "/active", About: "automount, indirect map, mounted"},
	{Path: lab.Indirect + "/idle/" + lab.Marker, Content: lab.Indirect + "/idle", About: "automount, indirect map, idle"},
}

// expiryLimit is how long a mount with a timeout of 1 s may stay: systemd and automount
// check every second.
const expiryLimit = 6 * time.Second

// expiringFiles give short timeouts to the automounts of the container.
func expiringFiles() map[string]string {
	files := map[string]string{
		"/etc/auto.master": "/- /etc/auto.direct --timeout=1\n" + lab.Indirect + " /etc/auto.indirect --timeout=1\n",
	}
	for _, path := range []string{lab.Idle, lab.Blank, lab.Covered} {
		files["/etc/systemd/system/"+lab.UnitName(path, "automount")] = fmt.Sprintf("[Automount]\nWhere=%s\nTimeoutIdleSec=1\n", path)
	}
	return files
}

// TestExpiryAndSecondCheckpoint repairs in each way a container whose mounts expire when
// they are idle. They still expire, are mounted again, and a second checkpoint of the
// repaired container can be repaired, too.
func TestExpiryAndSecondCheckpoint(t *testing.T) {
	requireHook(t)
	c := lab.Start(t, lab.Options{Files: expiringFiles()})
	c.Populate(t)
	before := timeouts(t, c)
	waitExpired(t, c, lab.Indirect+"/active")
	s := checkpointOf(t, c)
	for _, cure := range systemdCures {
		t.Run(cure, func(t *testing.T) {
			r := restoreTo(t, s, cure, nil)
			report := r.ReadReport(t)
			checkReport(t, report, r)
			checkCure(t, report, cure)
			for _, change := range lab.Changes(before, timeouts(t, r.Container)) {
				t.Errorf("the kernel's timeouts: %s", change)
			}
			checkExpires(t, r.Container, cure != "restarted")
			// Not automount's direct map: CRIU cannot dump a mount on it.
			r.CheckAnswers(t, slices.DeleteFunc(slices.Clone(expiring), func(a lab.Access) bool {
				return strings.HasPrefix(a.Path, "/direct/")
			}))

			if cure == "restarted" {
				// It has a file open on the former cover, which is in no mount table:
				// CRIU refuses to dump such a file.
				r.Run(t, "systemctl", "restart", "worker.service")
			}
			again := &snapshot{Checkpoint: r.Checkpoint(t)}
			r = restoreWithHook(t, again, lab.RestoreOptions{})
			checkPreserved(t, r)
			if cure == "preserved" {
				checkExpires(t, r.Container, true)
			}
			r.CheckAnswers(t, expiring)
			checkNoWaiters(t, r.Container)
			checkUncovered(t, r.Container)
			r.Kill(t) // the next one has the same name
		})
	}
}

// checkExpires mounts all expiring file systems, and waits until they have expired. The
// service that works in a cover still does, unless a restart has stopped it.
func checkExpires(t *testing.T, c *lab.Container, works bool) {
	t.Helper()
	c.CheckAnswers(t, expiring)
	var paths []string
	for _, a := range expiring {
		paths = append(paths, strings.TrimSuffix(a.Path, "/"+lab.Marker))
	}
	waitExpired(t, c, paths...)
	if stack := lab.Stack(t, c.PID, lab.Covered); works && stack != "autofs < tmpfs" {
		t.Errorf("%s: %s, want autofs < tmpfs", lab.Covered, stack)
	}
}

// waitExpired waits until only automounts are mounted at the paths.
func waitExpired(t *testing.T, c *lab.Container, paths ...string) {
	t.Helper()
	started := time.Now()
	for {
		var left []string
		for _, m := range lab.Mounts(t, c.PID) {
			if m.FSType != "autofs" && slices.Contains(paths, m.Mountpoint) {
				left = append(left, m.Mountpoint)
			}
		}
		if len(left) == 0 {
			t.Logf("expired after %s", time.Since(started).Round(10*time.Millisecond))
			return
		}
		if time.Since(started) > expiryLimit {
			t.Fatalf("still mounted after %s: %q", expiryLimit, left)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

var timeoutOption = regexp.MustCompile(`\btimeout=\d+`)

// timeouts returns the kernel's timeouts of the automounts, in every namespace.
func timeouts(t *testing.T, c *lab.Container) []string {
	t.Helper()
	var list []string
	for name, table := range c.Forest(t) {
		for _, m := range table {
			if m.FSType == "autofs" {
				list = append(list, fmt.Sprintf("process %s: %s: %s", name, m.Mountpoint, timeoutOption.FindString(m.VFSOptions)))
			}
		}
	}
	slices.Sort(list)
	return list
}
