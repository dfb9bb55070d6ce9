package forecast

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// says compares problems with parts of their texts, each with its time.
func says(t *testing.T, name string, got []Problem, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %+v, want %q", name, got, want)
		return
	}
	for i, p := range got {
		when, part, _ := strings.Cut(want[i], ": ")
		if p.When != when || !strings.Contains(p.What, part) || p.Next == "" || strings.Contains(p.What+p.Next, "\n") {
			t.Errorf("%s: %+v, want %q", name, p, want[i])
		}
	}
}

func TestMaps(t *testing.T) {
	daemon := func(kind autofs.Type, path string, covers ...string) Autofs {
		return Autofs{Namespace: 1, Path: path, Type: kind, Daemon: true, Covers: covers}
	}
	for name, test := range map[string]struct {
		list []Autofs
		want []string
	}{
		"nothing":          {nil, nil},
		"systemd's active": {[]Autofs{{Path: "/a", Type: autofs.Direct, Covers: []string{"/a"}}}, nil},
		"idle direct":      {[]Autofs{daemon(autofs.Direct, "/a")}, nil},
		"active direct":    {[]Autofs{daemon(autofs.Direct, "/a", "/a")}, []string{`checkpoint: mounted at "/a"`}},
		"in two namespaces": {[]Autofs{
			daemon(autofs.Direct, "/a", "/a"), {Namespace: 2, Path: "/a", Type: autofs.Direct, Daemon: true, Covers: []string{"/a"}},
		}, []string{`checkpoint: mounted at "/a", and`}},
		"active offset":    {[]Autofs{daemon(autofs.Indirect, "/i", "/i/k"), daemon(autofs.Offset, "/i/k/o", "/i/k/o")}, []string{`checkpoint: "/i/k/o"`}},
		"active indirect":  {[]Autofs{daemon(autofs.Indirect, "/i", "/i/a", "/i/b")}, nil},
		"two levels":       {[]Autofs{daemon(autofs.Indirect, "/i", "/i/a"), daemon(autofs.Indirect, "/i/b")}, []string{`restore: another one: "/i/b"`}},
		"beside it":        {[]Autofs{daemon(autofs.Indirect, "/i"), daemon(autofs.Indirect, "/ib")}, nil},
		"offsets, a root":  {[]Autofs{daemon(autofs.Indirect, "/i", "/i/k"), daemon(autofs.Offset, "/i/k/o")}, nil},
		"offsets, no root": {[]Autofs{daemon(autofs.Indirect, "/i", "/i/x"), daemon(autofs.Offset, "/i/k/o")}, []string{`restore: none at its root: "/i/k/o"`}},
		"unread requests":  {[]Autofs{{Path: "/a", Type: autofs.Direct, Unread: 304}}, []string{`checkpoint: requests for "/a"`}},
	} {
		says(t, name, Maps(test.list), test.want...)
	}
	many := make([]Autofs, 1000)
	for i := range many {
		many[i] = daemon(autofs.Direct, "/"+strings.Repeat("a", i+1), "/"+strings.Repeat("a", i+1))
	}
	if got := Maps(many); len(got) != 1 || !strings.Contains(got[0].What, "992 more") {
		t.Errorf("many: %+v", got)
	}
}

func TestJudge(t *testing.T) {
	at := func(kind, path, shown string) place {
		return place{watch: watch{PID: 7, Inode: 9}, kind: kind, path: path, shown: shown, gone: path == "" && shown == ""}
	}
	irmap := Machine{CRIU: "4.1.1", ForceIrmap: true}
	for name, test := range map[string]struct {
		place   place
		own     string
		machine Machine
		want    []string
	}{
		"a group":               {at("cgroup2", "/sys/fs/cgroup/a/cgroup.events", "/x"), "", irmap, nil},
		"a group of the host's": {at("cgroup2", "/sys/fs/cgroup/me/a/cgroup.events", "/x"), "/me", irmap, []string{`restore: "/me"`}},
		"another's":             {at("cgroup2", "/sys/fs/cgroup/me2/cgroup.events", "/x"), "/me", irmap, nil},
		"a group that is gone":  {at("cgroup2", "", ""), "", irmap, []string{`checkpoint: does not exist any more ("process 7")`}},
		"a file":                {at("ext4", "/etc", "/etc"), "", Machine{}, nil},
		"a link":                {at("ext4", "", "/etc/localtime"), "", Machine{}, []string{`restore: "/etc/localtime" is watched`}},
		"a link, irmap":         {at("ext4", "", "/etc/localtime"), "", irmap, nil},
		"in memory":             {at("tmpfs", "", "/run/x"), "", irmap, []string{"checkpoint: inode 9 on tmpfs"}},
		"no handle":             {at("overlay", "", ""), "", irmap, []string{"checkpoint: inode 9 on overlay"}},
		"another namespace's":   {at("", "", ""), "", irmap, nil},
	} {
		says(t, name, judge([]place{test.place}, test.own, test.machine), test.want...)
	}
}

func TestMachine(t *testing.T) {
	says(t, "none", Machine{}.Problems(), "checkpoint: no CRIU")
	says(t, "old", Machine{CRIU: "3.17.1", TooOld: true}.Problems(), "restore: CRIU 3.17.1 cannot")
	says(t, "good", Machine{CRIU: "4.1.1"}.Problems())
	says(t, "waits", []Problem{BlockedProcess(5, "cat", "/a\nb")}, `checkpoint: process 5 ("cat") waits on an automount at "/a\nb"`)
	says(t, "no device", []Problem{NoDevice()}, "restore: /dev/autofs")
}

func TestOfImages(t *testing.T) {
	if text := RestoreProblems(nil, 0); text != "" {
		t.Errorf("nothing: %q", text)
	}
	list := []Autofs{{Path: "/i", Type: autofs.Indirect, Daemon: true}, {Path: "/i/b", Type: autofs.Indirect, Daemon: true}}
	if text := RestoreProblems(list, 2); !strings.Contains(text, `will fail`) || !strings.Contains(text, "2 watched files") || strings.Contains(text, "\n") {
		t.Errorf("%q", text)
	}
}

func TestParseInfo(t *testing.T) {
	const text = "pos:\t0\nflags:\t02004000\nmnt_id:\t16\nino:\t1062\n" +
		"inotify wd:1 ino:9e7e sdev:800013 mask:800afce ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:7e9e0000640d1b6d\n" +
		"inotify wd:2 ino:5 sdev:26 mask:2\ninotify wd\n"
	got := parseInfo(3, text)
	if len(got) != 3 || got[0].Inode != 0x9e7e || got[0].Device != unix.Mkdev(8, 19) || len(got[0].Handle) != 8 || got[0].HandleType != 1 ||
		got[0].PID != 3 || got[1].Device != unix.Mkdev(0, 38) || got[1].Handle != nil || got[2].Inode != 0 {
		t.Errorf("%+v", got)
	}
}

// TestLocate watches real files: one that is there, a symbolic link, and a control
// group that is removed.
func TestLocate(t *testing.T) {
	testenv.RequireRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("cgroup2", dir, "cgroup2", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	group, err := os.MkdirTemp(dir, "autofs-restore-hook-test-")
	if err != nil {
		t.Fatal(err)
	}
	link := t.TempDir() + "/link"
	if err := os.Symlink("/etc/passwd", link); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	descriptors := map[string]int{}
	for path, mask := range map[string]uint32{"/etc/passwd": unix.IN_MODIFY, link: unix.IN_ATTRIB | unix.IN_DONT_FOLLOW, group + "/cgroup.events": unix.IN_MODIFY} {
		wd, err := unix.InotifyAddWatch(fd, path, mask)
		if err != nil {
			t.Fatal(err)
		}
		descriptors[path] = wd
	}
	if err := unix.Rmdir(group); err != nil {
		t.Fatal(err)
	}
	left := 3
	if watchRemoved(t, fd) {
		left--
	}
	watches, err := watchesOf([]int{os.Getpid()})
	if err != nil || len(watches) != left {
		t.Fatalf("%+v, %v; want %d", watches, err, left)
	}
	child := testenv.StartInNamespaces(t, unix.CLONE_NEWNS)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	places, err := locate(ctx, testproc.Open(t, child), watches)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, p := range places {
		switch {
		case p.path == "/etc/passwd":
			found["file"] = true
		case p.path == "" && p.shown == link:
			found["link"] = true
		case p.path == "" && p.shown == "" && p.kind == "cgroup2":
			found["gone"] = true
		default:
			t.Errorf("%+v", p)
		}
	}
	if len(found) != left {
		t.Errorf("found %v of %+v", found, places)
	}
	if !found["gone"] {
		return
	}
	// A watch that stays is a problem, one that is closed soon is none.
	gone := func() bool {
		problems, err := Watches(ctx, testproc.Open(t, child), []int{os.Getpid()}, "", Machine{})
		if err != nil {
			t.Error(err)
		}
		return slices.ContainsFunc(problems, func(p Problem) bool { return strings.Contains(p.What, "does not exist any more") })
	}
	if !gone() {
		t.Error("no problem with a watch on a group that is gone")
	}
	time.AfterFunc(settleTime/4, func() { _, _ = unix.InotifyRmWatch(fd, uint32(descriptors[group+"/cgroup.events"])) })
	if gone() {
		t.Error("a problem with a watch that was closed soon")
	}
}

// watchRemoved reports whether the kernel has removed a watch, as newer ones do with the
// control group (Linux 7.2; not 6.18).
func watchRemoved(t *testing.T, inotify int) bool {
	t.Helper()
	events := make([]byte, 1<<12)
	n, err := unix.Read(inotify, events)
	if err != nil && !errors.Is(err, unix.EAGAIN) {
		t.Fatal(err)
	}
	for at := 0; at+unix.SizeofInotifyEvent <= n; {
		e := (*unix.InotifyEvent)(unsafe.Pointer(&events[at]))
		if e.Mask&unix.IN_IGNORED != 0 {
			return true
		}
		at += unix.SizeofInotifyEvent + int(e.Len)
	}
	return false
}
