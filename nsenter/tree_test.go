package nsenter

import (
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
)

// family starts a shell with a child and a grandchild, each of which ends with
// the test's pipe.
func family(t *testing.T, attr *syscall.SysProcAttr) *Process {
	t.Helper()
	c := testenv.StartCommand(t, attr, "sh", "-c", `exec 3<&0; sh -c 'cat <&3 & cat <&3; :' & cat <&3; wait`)
	p := open(t, c)
	t.Cleanup(func() { c.Input.Close() })
	testenv.Eventually(t, "a family of five", func() bool {
		list, err := p.Descendants()
		return err == nil && len(list) == 5
	})
	return p
}

func TestDescendants(t *testing.T) {
	p := family(t, nil)
	list, err := p.Descendants()
	if err != nil || list[0] != p.PID() {
		t.Fatalf("%v, %v", list, err)
	}
	for i, pid := range list[1:] {
		if parent := parentOf(t, pid); !slices.Contains(list[:i+1], parent) {
			t.Errorf("process %d comes before its parent %d in %v", pid, parent, list)
		}
	}
	// Without a pid namespace of its own these are all.
	members, err := p.Members()
	if err != nil || !slices.Equal(members, list) {
		t.Errorf("members %v, %v, want %v", members, err, list)
	}
}

func parentOf(t *testing.T, pid int) int {
	t.Helper()
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, "PPid:"); ok {
			parent, err := strconv.Atoi(strings.TrimSpace(value))
			if err != nil {
				t.Fatal(err)
			}
			return parent
		}
	}
	t.Fatalf("process %d has no parent", pid)
	return 0
}

// TestMembers finds a process that entered the pid namespace from outside.
func TestMembers(t *testing.T) {
	testenv.RequireRoot(t)
	if _, err := exec.LookPath("nsenter"); err != nil {
		t.Skip("skipped: needs nsenter(1)")
	}
	p := family(t, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID})
	guest := testenv.StartCommand(t, nil, "nsenter", "--target", strconv.Itoa(p.PID()), "--pid", "cat")
	var entered []int
	testenv.Eventually(t, "a guest in the pid namespace", func() bool {
		q, err := Open(guest.PID())
		if err != nil {
			return false
		}
		defer q.Close()
		entered, err = q.Descendants()
		return err == nil && len(entered) == 2
	})
	descendants, err := p.Descendants()
	if err != nil || slices.Contains(descendants, entered[1]) {
		t.Errorf("descendants %v, %v, the guest is %d", descendants, err, entered[1])
	}
	members, err := p.Members()
	slices.Sort(members)
	want := append(slices.Clone(descendants), entered[1])
	slices.Sort(want)
	if err != nil || !slices.Equal(members, want) {
		t.Errorf("members %v, %v, want %v", members, err, want)
	}
	if slices.Contains(members, guest.PID()) || slices.Contains(members, os.Getpid()) {
		t.Errorf("members %v: with one of the host", members)
	}
}

func TestDescendantsOfTheDead(t *testing.T) {
	c := testenv.Start(t, nil)
	p := open(t, c)
	c.End()
	if list, err := p.Descendants(); err == nil || !isGone(err) {
		t.Errorf("%v, %v", list, err)
	}
	if list, err := p.Members(); err == nil {
		t.Errorf("members %v", list)
	}
}
