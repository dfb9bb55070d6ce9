package freezer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/cgroup"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/guard"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
)

// hierarchy is a mounted hierarchy of control groups in which groups can be
// frozen: version 2, or the freezer of version 1.
type hierarchy struct {
	version int
	root    string
}

// eachVersion runs a test in both kinds of hierarchies.
func eachVersion(t *testing.T, test func(t *testing.T, h hierarchy)) {
	t.Helper()
	requireRoot(t)
	for _, version := range []int{1, 2} {
		t.Run(fmt.Sprintf("version %d", version), func(t *testing.T) { test(t, newHierarchy(t, version)) })
	}
}

// newHierarchy finds a hierarchy, or mounts it in the tests' own mount
// namespace, as on a host where version 1 is not in use.
func newHierarchy(t *testing.T, version int) hierarchy {
	t.Helper()
	requireRoot(t)
	root, ok := rootOf(t, version)
	if !ok {
		root = t.TempDir()
		kind, options := "cgroup", "freezer"
		if version == 2 {
			kind, options = "cgroup2", ""
		}
		if err := unix.Mount("cgroup", root, kind, 0, options); err != nil {
			if os.Getenv("REQUIRE") == "1" {
				t.Fatalf("required: control groups of version %d: %v", version, err)
			}
			t.Skipf("skipped: no control groups of version %d: %v", version, err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
	}
	return hierarchy{version: version, root: root}
}

func rootOf(t *testing.T, version int) (string, bool) {
	t.Helper()
	mounted, err := cgroup.Mounts()
	if err != nil {
		t.Fatal(err)
	}
	return mounted.Dir(cgroup.Membership{Controllers: map[int]string{1: "freezer", 2: ""}[version], Path: "/"})
}

// group makes a control group, named after the test, and removes it in the end.
func (h hierarchy) group(t *testing.T) string {
	t.Helper()
	name := strings.NewReplacer("/", "-", " ", "-").Replace(t.Name())
	dir, err := os.MkdirTemp(h.root, name+"-")
	if err != nil {
		t.Fatal(err)
	}
	removeAtEnd(t, dir)
	return dir
}

// below makes a group in a group.
func below(t *testing.T, parent string) string {
	t.Helper()
	dir := filepath.Join(parent, "below")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	removeAtEnd(t, dir)
	return dir
}

func removeAtEnd(t *testing.T, dir string) {
	t.Helper()
	t.Cleanup(func() {
		testenv.Eventually(t, "the removal of "+dir, func() bool {
			err := os.Remove(dir) // EBUSY while a process is on its way out
			return err == nil || errors.Is(err, fs.ErrNotExist)
		})
	})
}

// spin starts a process in a group that runs all the time.
func (h hierarchy) spin(t *testing.T, dir string) *testenv.Child {
	t.Helper()
	c := testenv.StartCommand(t, nil, "sh", "-c", "while :; do :; done")
	pid := strconv.Itoa(c.PID())
	if root, ok := rootOf(t, 2); ok && h.version == 1 {
		write(t, filepath.Join(root, "cgroup.procs"), pid) // whatever group the tests run in
	}
	// Before the child is ended: one that version 1 has frozen cannot be killed.
	t.Cleanup(func() { thaw(dir) })
	write(t, filepath.Join(dir, "cgroup.procs"), pid)
	expectRunning(t, c)
	return c
}

func thaw(dir string) {
	_ = os.WriteFile(filepath.Join(dir, "cgroup.freeze"), []byte("0"), 0)
	_ = os.WriteFile(filepath.Join(dir, "freezer.state"), []byte("THAWED"), 0)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0); err != nil {
		t.Fatal(err)
	}
}

// used is the processor time that a process has used, in ticks (1/100 s).
func used(t *testing.T, c *testenv.Child) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.PID()))
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	user, err := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return user + system
}

func expectRunning(t *testing.T, list ...*testenv.Child) {
	t.Helper()
	for _, c := range list {
		before := used(t, c)
		testenv.Eventually(t, "a process that runs", func() bool { return used(t, c) > before })
	}
}

func expectStopped(t *testing.T, list ...*testenv.Child) {
	t.Helper()
	for _, c := range list {
		// The first looks may be too early: Freeze waits only for settleTime, and a
		// busy or emulated processor can take longer to leave user space.
		var ticks int
		for range 3 {
			before := used(t, c)
			time.Sleep(60 * time.Millisecond)
			if ticks = used(t, c) - before; ticks == 0 {
				break
			}
		}
		if ticks != 0 {
			t.Errorf("a frozen process used %d ticks", ticks)
		}
	}
}

func pids(list ...*testenv.Child) []int {
	var numbers []int
	for _, c := range list {
		numbers = append(numbers, c.PID())
	}
	return numbers
}

func members(list ...*testenv.Child) func() ([]int, error) {
	return func() ([]int, error) { return pids(list...), nil }
}

// guards lists the guards of the tests, which have a pid namespace of their own;
// those that have ended but not been waited for too.
func guards(t *testing.T) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var found []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && slices.Contains(strings.Split(string(data), "\x00"), guard.Verb) {
			found = append(found, pid)
		}
	}
	return found
}

func expectNoGuard(t *testing.T) {
	t.Helper()
	testenv.Eventually(t, "the end of every guard", func() bool { return len(guards(t)) == 0 })
}
