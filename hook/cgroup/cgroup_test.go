package cgroup

import (
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

func TestOf(t *testing.T) {
	p, err := nsenter.Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	groups, err := Of(p)
	if err != nil || len(groups) == 0 {
		t.Fatalf("%v, %v", groups, err)
	}
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for i, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		id, _, _ := strings.Cut(line, ":")
		lines = append(lines, id+":"+groups[i].Controllers+":"+groups[i].Path)
	}
	if got := strings.Join(lines, "\n"); got != strings.TrimSpace(string(data)) {
		t.Errorf("read\n%s\nof\n%s", got, data)
	}
}

func TestDir(t *testing.T) {
	h := hierarchies{
		{FSType: "cgroup", Root: "/", Mountpoint: "/c/cpu,cpuacct", VFSOptions: "rw,cpu,cpuacct"},
		{FSType: "cgroup", Root: "/", Mountpoint: "/c/systemd", VFSOptions: "rw,xattr,name=systemd"},
		{FSType: "cgroup", Root: "/docker/x", Mountpoint: "/c/freezer", VFSOptions: "rw,freezer"},
		{FSType: "cgroup2", Root: "/", Mountpoint: "/c/unified", VFSOptions: "rw,nsdelegate"},
	}
	for _, test := range []struct {
		of   Membership
		want string
	}{
		{Membership{"", "/"}, "/c/unified"},
		{Membership{"", "/a b/c"}, "/c/unified/a b/c"},
		{Membership{"cpu,cpuacct", "/x"}, "/c/cpu,cpuacct/x"},
		{Membership{"name=systemd", "/x"}, "/c/systemd/x"},
		{Membership{"freezer", "/docker/x"}, "/c/freezer"},
		{Membership{"freezer", "/docker/x/y"}, "/c/freezer/y"},
		{Membership{"freezer", "/docker/xy"}, ""},
		{Membership{"freezer", "/"}, ""},
		{Membership{"pids", "/x"}, ""},
		{Membership{"name=other", "/x"}, ""},
	} {
		if got, ok := h.Dir(test.of); got != test.want || ok != (test.want != "") {
			t.Errorf("%+v: %q, %v, want %q", test.of, got, ok, test.want)
		}
	}
	if _, ok := (hierarchies{}).Dir(Membership{"", "/"}); ok {
		t.Error("a directory without hierarchies")
	}
}

// TestMounts compares with the kernel's table.
func TestMounts(t *testing.T) {
	h, err := allMounts()
	if err != nil {
		t.Fatal(err)
	}
	all, err := mountinfo.GetMounts(nil)
	if err != nil {
		t.Fatal(err)
	}
	var want hierarchies
	for _, m := range all {
		if m.FSType == "cgroup" || m.FSType == "cgroup2" {
			want = append(want, m)
		}
	}
	if !reflect.DeepEqual(h, want) {
		t.Errorf("%v, want %v", h, want)
	}
}

// TestMoveLike moves a child into another group, and to one like a model's.
func TestMoveLike(t *testing.T) {
	testenv.RequireRoot(t)
	h, err := allMounts()
	if err != nil {
		t.Fatal(err)
	}
	model, guest := testenv.Start(t, nil), testenv.Start(t, nil)
	m, g := testproc.Open(t, model), testproc.Open(t, guest)
	groups, err := Of(m)
	if err != nil {
		t.Fatal(err)
	}
	moved := 0
	for _, group := range groups {
		dir, ok := h.Dir(group)
		if !ok || strings.Contains(group.Controllers, "cpuset") {
			continue // a new cpuset accepts no process before it is configured
		}
		dir = filepath.Join(dir, "autofs-restore-hook-test-"+strconv.Itoa(os.Getpid()))
		if os.Mkdir(dir, 0o755) != nil {
			continue // read-only here
		}
		t.Cleanup(func() {
			model.End()
			guest.End()
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
		})
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(m.PID())), 0); err == nil {
			moved++
		}
	}
	if moved == 0 {
		if os.Getenv("REQUIRE") == "1" {
			t.Fatal("required: a cgroup hierarchy to write to")
		}
		t.Skip("skipped: no cgroup hierarchy can be written to")
	}
	if err := MoveLike(g.PID(), m); err != nil {
		t.Fatal(err)
	}
	want, err := Of(m)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Of(g); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("in %v, want %v, %v", got, want, err)
	}
	guest.End()
	if err := MoveLike(g.PID(), m); err == nil {
		t.Error("a dead process was moved")
	}
}

// TestVersion2: found without the mount table, version 2 is where that has it.
func TestVersion2(t *testing.T) {
	short, err := version2()
	if err != nil {
		t.Fatal(err)
	}
	long, err := allMounts()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/", "/a/b"} {
		got, gotOK := short.Dir(Membership{"", path})
		want, wantOK := long.Dir(Membership{"", path})
		if got != want || gotOK != wantOK {
			t.Errorf("%s: %q %v, the mount table says %q %v", path, got, gotOK, want, wantOK)
		}
	}
}
