package hook

import (
	"bufio"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// TestRepresentative: the process that a mount namespace was found by ends while
// others live there, as the first process of a service does that forks; then these
// end too.
func TestRepresentative(t *testing.T) {
	testenv.RequireRoot(t)
	cmd := exec.Command("unshare", "--mount", "sh", "-c", `unshare --mount sh -c 'sleep 60 & sleep 60 & echo ready; wait' & wait; cat`)
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	child := testenv.StartPrepared(t, cmd)
	if _, err := bufio.NewReader(output).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	init := open(t, child)
	sc, err := look(init, false)
	if err != nil {
		t.Fatal(err)
	}
	defer sc.close()
	if len(sc.spaces) != 2 {
		t.Fatalf("%d mount namespaces, want 2", len(sc.spaces))
	}
	var inside []*nsenter.Process
	for _, pid := range sc.members {
		if nsenter.MountNamespaceOf(pid).Inode == sc.spaces[1].id {
			p, err := nsenter.Open(pid)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			inside = append(inside, p)
		}
	}
	if len(inside) < 3 {
		t.Fatalf("%d processes in the second one, want 3", len(inside))
	}
	end := func(p *nsenter.Process) {
		t.Helper()
		if err := p.Signal(9); err != nil {
			t.Fatal(err)
		}
		if err := p.WaitEnd(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := sc.readTables(); err != nil {
		t.Fatal(err)
	}
	before := sc.spaces[1].process.PID()
	end(inside[slices.IndexFunc(inside, func(p *nsenter.Process) bool { return p.PID() == before })])
	if err := sc.readTables(); err != nil {
		t.Fatal(err)
	}
	if now := sc.spaces[1]; now.table == nil || now.process.PID() == before {
		t.Errorf("represented by %d, before by %d; it has a table: %t", now.process.PID(), before, now.table != nil)
	}
	for _, p := range inside {
		if p.PID() != before {
			end(p)
		}
	}
	if err := sc.readTables(); err != nil || sc.spaces[1].table != nil {
		t.Errorf("with nobody left: %v, it has a table: %t", err, sc.spaces[1].table != nil)
	}
	end(init)
	if err := sc.readTables(); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("without the first process: %v", err)
	}
}

// TestCheckFirst: a person who names another process than the first is told why all
// masters seem to be outside.
func TestCheckFirst(t *testing.T) {
	init := open(t, testenv.StartInNamespaces(t, unix.CLONE_NEWPID|unix.CLONE_NEWNS))
	other := open(t, testenv.StartInNamespaces(t, unix.CLONE_NEWNS)) // in the pid namespace of the tests
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
		"served from far away":   {other, init, false},
		"nothing served outside": {other, nil, false},
	} {
		sc, err := look(test.named, false)
		if err != nil {
			t.Fatal(err)
		}
		var list []Mount
		if test.master != nil {
			list = served(test.master)
		}
		if err := sc.checkFirst(list); (err != nil) != test.warned {
			t.Errorf("%s: %v, want a warning: %v", name, err, test.warned)
		}
		sc.close()
	}
}

// TestInhabitants: a process that entered the container may wait on its mounts; one
// of another container in the same pid namespace has mounts of its own.
func TestInhabitants(t *testing.T) {
	init := open(t, testenv.StartInNamespaces(t, unix.CLONE_NEWPID|unix.CLONE_NEWNS))
	target := []string{"nsenter", "--target", strconv.Itoa(init.PID()), "--pid"}
	entered := func(args ...string) int {
		parent := open(t, testenv.StartCommand(t, nil, append(slices.Clone(target), args...)...))
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
	visitor, sibling := entered("--mount", "cat"), entered("unshare", "--mount", "cat")
	for everyone, want := range map[bool][]int{false: {init.PID()}, true: {init.PID(), visitor}} {
		sc, err := look(init, everyone)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(sc.members, want) || len(sc.spaces) != 1 {
			t.Errorf("everyone %v: members %v in %d mount namespaces, want %v in 1; the sibling is %d", everyone, sc.members, len(sc.spaces), want, sibling)
		}
		sc.close()
	}
}
