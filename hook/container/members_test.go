package container

import (
	"os"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// TestCheckFirstProcess: a warning explains why all masters count as outside if the named
// process is not the container's first one.
func TestCheckFirstProcess(t *testing.T) {
	init := testproc.Open(t, testenv.StartInNamespaces(t, unix.CLONE_NEWPID|unix.CLONE_NEWNS))
	other := testproc.Open(t, testenv.StartInNamespaces(t, unix.CLONE_NEWNS)) // in the pid namespace of the tests
	served := func(p *nsenter.Process) []Mount {
		return []Mount{{Path: "/a", Master: Master{Identity: master.Identity{Kind: master.Outside, PID: p.PID()}}}}
	}
	self, err := nsenter.Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	for name, test := range map[string]struct {
		named  *nsenter.Process
		master *nsenter.Process
		warned bool
	}{
		"first process":          {init, self, false},
		"another one":            {other, self, true},
		"another pid namespace":  {other, init, false},
		"nothing served outside": {other, nil, false},
	} {
		c, err := Open(test.named, false)
		if err != nil {
			t.Fatal(err)
		}
		var list []Mount
		if test.master != nil {
			list = served(test.master)
		}
		if err := c.CheckFirstProcess(list); (err != nil) != test.warned {
			t.Errorf("%s: %v, want a warning: %v", name, err, test.warned)
		}
		c.Close()
	}
}

// TestVisitors: a process that entered the container may wait on its mounts; a process of
// another container in the same pid namespace has its own mounts.
func TestVisitors(t *testing.T) {
	init := testproc.Open(t, testenv.StartInNamespaces(t, unix.CLONE_NEWPID|unix.CLONE_NEWNS))
	target := []string{"nsenter", "--target", strconv.Itoa(init.PID()), "--pid"}
	enter := func(args ...string) int {
		parent := testproc.Open(t, testenv.StartCommand(t, nil, append(slices.Clone(target), args...)...))
		var list []int
		testenv.Eventually(t, "a process in the pid namespace", func() bool {
			var err error
			if list, err = parent.Descendants(); err != nil || len(list) != 2 {
				return false
			}
			comm, _ := os.ReadFile("/proc/" + strconv.Itoa(list[1]) + "/comm")
			return string(comm) == "cat\n"
		})
		return list[1]
	}
	visitor, sibling := enter("--mount", "cat"), enter("unshare", "--mount", "cat")
	for visitors, want := range map[bool][]int{false: {init.PID()}, true: {init.PID(), visitor}} {
		c, err := Open(init, visitors)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(c.Members, want) || len(c.Spaces) != 1 {
			t.Errorf("visitors %v: members %v in %d mount namespaces, want %v in 1; the sibling is %d", visitors, c.Members, len(c.Spaces), want, sibling)
		}
		c.Close()
	}
}
