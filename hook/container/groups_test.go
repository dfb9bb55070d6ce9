package container

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
)

// TestSharedGroup puts processes into the control group of a container's first process.
func TestSharedGroup(t *testing.T) {
	dir := testenv.Cgroup(t)
	start := func(flags uintptr) *testenv.Child {
		child := testenv.StartInNamespaces(t, flags)
		t.Cleanup(child.End)
		if err := os.WriteFile(dir+"/cgroup.procs", []byte(strconv.Itoa(testproc.Open(t, child).PID())), 0); err != nil {
			t.Fatal(err)
		}
		return child
	}
	init := testproc.Open(t, start(unix.CLONE_NEWPID))
	c := &Container{Init: init, Members: []int{init.PID()}}
	start(0) // as a script of CRIU's, which runc calls in the container's group
	if got := c.GroupWarnings(); len(got) > 0 {
		t.Errorf("no other container: %q", got)
	}
	other := testproc.Open(t, start(unix.CLONE_NEWPID)).PID()
	if got := c.GroupWarnings(); len(got) != 1 || !strings.Contains(got[0], "process "+strconv.Itoa(other)+", the first one of another container") {
		t.Errorf("process %d is another container's: %q", other, got)
	}
	c.Members = append(c.Members, other)
	if got := c.GroupWarnings(); len(got) > 0 {
		t.Errorf("a container in this one: %q", got)
	}
}
