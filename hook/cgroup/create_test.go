package cgroup

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
)

// ownGroup creates a group of the test's own in the hierarchy of version 2.
func ownGroup(t *testing.T) (dir string, own *os.File) {
	t.Helper()
	dir = testenv.Cgroup(t)
	own, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { own.Close() })
	return dir, own
}

func TestCreate(t *testing.T) {
	dir, own := ownGroup(t)
	if err := os.Mkdir(dir+"/system.slice", 0o755); err != nil {
		t.Fatal(err)
	}
	wanted := []string{"system.slice/mnt-a.mount", "system.slice/system-modprobe.slice", "a/b/c", "system.slice/mnt-a.mount", "a"}
	created, err := Create(own, wanted)
	want := []string{"a", "a/b", "a/b/c", "system.slice/mnt-a.mount", "system.slice/system-modprobe.slice"}
	if err != nil || !slices.Equal(created, want) {
		t.Errorf("%q, %v; want %q", created, err, want)
	}
	for _, rel := range want {
		if _, err := os.Stat(filepath.Join(dir, rel, "cgroup.events")); err != nil {
			t.Error(err)
		}
	}
	if again, err := Create(own, wanted); err != nil || len(again) > 0 {
		t.Errorf("again: %q, %v", again, err)
	}
	child := testenv.Start(t, nil)
	if err := os.WriteFile(dir+"/system.slice/mnt-a.mount/cgroup.procs", fmtPID(child), 0); err != nil {
		t.Fatal(err)
	}
	if err := Remove(own, created); err == nil || !strings.Contains(err.Error(), "mnt-a.mount") || strings.Contains(err.Error(), "modprobe") {
		t.Errorf("a group with a process was removed, or another was not: %v", err)
	}
	child.End()
	testenv.Eventually(t, "the group is empty", func() bool { return Remove(own, created) == nil })
	if left, _ := filepath.Glob(dir + "/*/*/"); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	if err := Remove(own, created); err != nil {
		t.Errorf("removed twice: %v", err)
	}
}

// TestCreateOwner creates groups in one that belongs to another user.
func TestCreateOwner(t *testing.T) {
	dir, own := ownGroup(t)
	if err := os.Mkdir(dir+"/user", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir+"/user", 1234, 5678); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(own, []string{"user/a/b", "root"}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][2]uint32{
		"user/a": {1234, 5678}, "user/a/b": {1234, 5678}, "user/a/b/cgroup.procs": {1234, 5678}, "root": {0, 0},
	} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		if st := info.Sys().(*syscall.Stat_t); st.Uid != want[0] || st.Gid != want[1] { //nolint:forcetypeassert // of os.Stat
			t.Errorf("%s belongs to %d:%d, want %d:%d", path, st.Uid, st.Gid, want[0], want[1])
		}
	}
	// The thread has its own user id back.
	if err := os.WriteFile(dir+"/root/cgroup.max.depth", []byte("5"), 0); err != nil {
		t.Error(err)
	}
}

func TestCreateRefused(t *testing.T) {
	dir, own := ownGroup(t)
	if err := os.WriteFile(dir+"/cgroup.max.descendants", []byte("2"), 0); err != nil {
		t.Fatal(err)
	}
	created, err := Create(own, []string{"a", "b", "c", "d"})
	if len(created) != 2 || err == nil || !strings.Contains(err.Error(), "cgroup.max.descendants") || strings.Contains(err.Error(), "\n") {
		t.Errorf("full: %q, %v", created, err)
	}
	outside := filepath.Base(dir) + "-outside"
	for _, rel := range []string{"../" + outside, "a/../../" + outside, "/" + outside, "cgroup.procs/x"} {
		if created, err := Create(own, []string{rel}); err == nil || len(created) > 0 {
			t.Errorf("%s: %q, %v", rel, created, err)
		}
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(dir), outside)); err == nil {
		t.Error("a group was created outside")
	}
	if err := unix.Mount("", filepath.Dir(dir), "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if created, err := Create(own, []string{"e"}); len(created) > 0 || err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("read-only: %q, %v", created, err)
	}
	if err := unix.Mount("", filepath.Dir(dir), "", unix.MS_REMOUNT|unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
}

func TestCheckName(t *testing.T) {
	for name, good := range map[string]bool{
		"system.slice": true, "mnt-with\\x20blank.mount": true, "init.scope": true, "ümlaut": true, "_memory.service": true, "memory": true, "a.b": true,
		"": false, ".": false, "..": false, "a/b": false, "a\nb": false, "a\x7f": false, "cgroup.procs": false, "memory.max": false, "cpu.stat": false,
		strings.Repeat("a", 255): true, strings.Repeat("a", 256): false,
	} {
		if err := CheckName(name); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestOwn(t *testing.T) {
	dir, _ := ownGroup(t)
	name := "/" + filepath.Base(dir)
	if err := os.MkdirAll(dir+"/init.scope", 0o755); err != nil {
		t.Fatal(err)
	}
	init, engine := testenv.Start(t, nil), testenv.Start(t, nil)
	for _, group := range []string{dir, dir + "/init.scope"} {
		if err := os.WriteFile(group+"/cgroup.procs", fmtPID(init), 0); err != nil {
			t.Fatal(err)
		}
		if own, err := Own(testproc.Open(t, init)); err != nil || own != name {
			t.Errorf("%s: %q, %v; want %q", group, own, err, name)
		}
	}
	if err := CheckOwn(name, testproc.Open(t, engine)); err != nil {
		t.Error(err)
	}
	for group, good := range map[string]bool{name: true, "/": false, "": false, "/../x": false, "/a/../b": false, "x": false} {
		if err := CheckOwn(group, nil); (err == nil) != good {
			t.Errorf("%q: %v", group, err)
		}
	}
	if err := os.WriteFile(dir+"/init.scope/cgroup.procs", fmtPID(engine), 0); err != nil {
		t.Fatal(err)
	}
	if err := CheckOwn(name, testproc.Open(t, engine)); err == nil {
		t.Error("a group that holds the engine passed for a container's")
	}
	group, err := OpenGroup(name + "/init.scope")
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	var opened, want unix.Stat_t
	if unix.Fstat(int(group.Fd()), &opened) != nil || unix.Stat(dir+"/init.scope", &want) != nil || opened.Ino != want.Ino || opened.Dev != want.Dev {
		t.Error("opened another group")
	}
	if _, err := OpenGroup(name + "/absent"); err == nil {
		t.Error("opened an absent group")
	}
	init.End()
	engine.End()
}

func fmtPID(c *testenv.Child) []byte { return strconv.AppendInt(nil, int64(c.PID()), 10) }
