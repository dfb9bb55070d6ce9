package lab

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const entrypoint = "/srv/entrypoint"

// StartAutomount starts a container without systemd, whose PID 1 is a shell that runs the
// given lines. These must start automount, with the maps of the standard container. It
// waits until the direct maps are mounted, and mounts the indirect key "active".
func StartAutomount(t testing.TB, shell string, options Options) *Container {
	t.Helper()
	options.Args = []string{"/bin/sh", entrypoint}
	files := map[string]string{entrypoint: shell}
	maps.Copy(files, options.Files)
	options.Files = files
	c := Start(t, options)
	eventually := time.Now().Add(bootLimit)
	for !c.hasMounts(Indirect) || len(options.Files) == 1 && !c.hasMounts(Direct, Direct2) {
		if time.Now().After(eventually) {
			t.Fatalf("container %s: automount did not mount its maps within %s", c.ID, bootLimit)
		}
		time.Sleep(10 * time.Millisecond)
	}
	c.Run(t, "cat", Indirect+"/active/"+Marker)
	return c
}

func (c *Container) hasMounts(paths ...string) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", c.PID))
	if err != nil {
		return false
	}
	for _, path := range paths {
		if !strings.Contains(string(text), " "+path+" ") {
			return false
		}
	}
	return true
}

// Daemons returns the pids, in the node, of the container's automount daemons.
func (c *Container) Daemons(t testing.TB) []int {
	t.Helper()
	namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", c.PID))
	if err != nil {
		t.Fatal(err)
	}
	var found []int
	for _, p := range processes() {
		if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", p)); err != nil || ns != namespace {
			continue
		}
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p)); err == nil && filepath.Base(exe) == "automount" {
			found = append(found, p)
		}
	}
	return found
}

// Daemon returns the pid, in the node, of the container's only automount daemon.
func (c *Container) Daemon(t testing.TB) int {
	t.Helper()
	found := c.Daemons(t)
	if len(found) != 1 {
		t.Fatalf("container %s: automount daemons: %v, want one", c.ID, found)
	}
	return found[0]
}

// DaemonAccesses are the paths that automount serves.
var DaemonAccesses = []Access{
	{Direct + "/" + Marker, Direct, "automount, direct map", true},
	{Direct2 + "/" + Marker, Direct2, "automount, direct map", true},
	{Indirect + "/active/" + Marker, Indirect + "/active", "automount, indirect map, mounted", false},
	{Indirect + "/idle/" + Marker, Indirect + "/idle", "automount, indirect map, idle", false},
}
