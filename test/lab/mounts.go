package lab

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
)

// Mounts returns the mount table of a process. It is read from the node, which enters no
// namespace and waits for no master.
func Mounts(t testing.TB, pid int) []*mountinfo.Info {
	t.Helper()
	file, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	table, err := mountinfo.GetMountsFromReader(file, nil)
	if err != nil {
		t.Fatalf("%s: %v", file.Name(), err)
	}
	return table
}

// MountTable returns the mount table as text, for comparisons.
func (c *Container) MountTable(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", c.PID))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Autofs returns the autofs mounts of a process, by path. Two at one path are an error: a
// replaced mount is still beneath.
func Autofs(t testing.TB, pid int) map[string]*mountinfo.Info {
	t.Helper()
	found := make(map[string]*mountinfo.Info)
	for _, m := range Mounts(t, pid) {
		if m.FSType != "autofs" {
			continue
		}
		if _, twice := found[m.Mountpoint]; twice {
			t.Errorf("process %d: more than one autofs at %s", pid, m.Mountpoint)
		}
		found[m.Mountpoint] = m
	}
	return found
}

// Stack returns the file system types at a path, the lowest first. The parents determine
// the order: a mount that was attached beneath another one is listed after it.
func Stack(t testing.TB, pid int, path string) string {
	t.Helper()
	at := make(map[int]*mountinfo.Info) // by parent
	var lowest *mountinfo.Info
	table := Mounts(t, pid)
	for _, m := range table {
		if m.Mountpoint == path {
			at[m.Parent] = m
		}
	}
	for _, m := range at {
		beneath := false
		for _, other := range at {
			beneath = beneath || other.ID == m.Parent
		}
		if !beneath {
			lowest = m
		}
	}
	var types []string
	for m := lowest; m != nil; m = at[m.ID] {
		types = append(types, m.FSType)
	}
	return strings.Join(types, " < ")
}
