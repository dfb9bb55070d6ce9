package mounts

import (
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
)

// line writes a line of mountinfo.
func line(id, parent, minor int, point, optional, fstype string) string {
	if optional != "" {
		optional += " "
	}
	return fmt.Sprintf("%d %d 0:%d / %s rw,relatime %s- %s source rw\n", id, parent, minor, point, optional, fstype)
}

func read(t *testing.T, lines ...string) *Table {
	t.Helper()
	table, err := Read(strings.NewReader(strings.Join(lines, "")))
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func ids(list []*Mount) []int {
	found := []int{}
	for _, m := range list {
		found = append(found, m.ID)
	}
	return found
}

func TestTable(t *testing.T) {
	root := line(1, 0, 1, "/", "", "ext4")
	for name, test := range map[string]struct {
		lines     []string
		stack, on []int // of mount 2
	}{
		"idle":    {[]string{root, line(2, 1, 2, "/a", "", "autofs")}, []int{}, []int{}},
		"covered": {[]string{root, line(2, 1, 2, "/a", "", "autofs"), line(3, 2, 3, "/a", "", "tmpfs")}, []int{3}, []int{3}},
		"stack": {[]string{
			root, line(2, 1, 2, "/a", "", "autofs"), line(3, 2, 3, "/a", "", "tmpfs"), line(4, 3, 4, "/a", "", "tmpfs"),
			line(5, 4, 5, "/a/below", "", "tmpfs"),
		}, []int{3, 4}, []int{3, 4, 5}},
		"beneath: a lower mount with a higher id": {[]string{
			line(5, 9, 5, "/a", "", "tmpfs"), root, line(9, 2, 9, "/a", "", "tmpfs"),
			line(2, 1, 2, "/a", "", "autofs"),
		}, []int{9, 5}, []int{9, 5}},
		"beneath by id": {
			[]string{root, line(2, 7, 2, "/a", "", "autofs"), line(3, 2, 3, "/a", "", "tmpfs"), line(7, 1, 7, "/a", "", "tmpfs")},
			[]int{3},
			[]int{3},
		},
		"indirect content": {[]string{
			root, line(2, 1, 2, "/a", "", "autofs"), line(3, 2, 3, "/a/x", "", "tmpfs"), line(4, 2, 4, "/a/y", "", "tmpfs"),
			line(5, 3, 5, "/a/x/z", "", "tmpfs"),
		}, []int{}, []int{3, 4, 5}},
		"a neighbour with a longer name": {[]string{root, line(2, 1, 2, "/a", "", "autofs"), line(3, 1, 3, "/ab", "", "tmpfs")}, []int{}, []int{}},
		"its own parent":                 {[]string{line(2, 2, 2, "/", "", "autofs")}, []int{}, []int{}},
		"a circle":                       {[]string{line(2, 3, 2, "/", "", "autofs"), line(3, 2, 3, "/", "", "tmpfs")}, []int{3}, []int{3}},
	} {
		table := read(t, test.lines...)
		m := table.ByID(2)
		if got := ids(table.Covers(m)); !slices.Equal(got, test.stack) {
			t.Errorf("%s: stack %v, want %v", name, got, test.stack)
		}
		if got := ids(table.Descendants(m)); !slices.Equal(got, test.on) {
			t.Errorf("%s: on it %v, want %v", name, got, test.on)
		}
		if table.ByID(99) != nil {
			t.Errorf("%s: a mount 99", name)
		}
	}
}

func TestNames(t *testing.T) {
	for escaped, want := range map[string]string{
		`/a\040b`: "/a b", `/a\012b`: "/a\nb", `/a\134b`: `/a\b`, `/a\011b`: "/a\tb", `/a\043b`: "/a#b", `/a\134040b`: `/a\040b`,
		"/" + strings.Repeat(`\040`, 4000): "/" + strings.Repeat(" ", 4000), "/\xff\xc3": "/\xff\xc3",
	} {
		table := read(t, line(1, 0, 1, "/", "", "ext4"), line(2, 1, 2, escaped, "shared:3", "autofs"))
		if got := table.ByID(2); got.Mountpoint != want || got.FSType != "autofs" || DeviceString(DeviceOf(got)) != "0:2" {
			t.Errorf("%.40q: %.40q of type %s, %s", escaped, got.Mountpoint, got.FSType, DeviceString(DeviceOf(got)))
		}
	}
}

// TestLongLines: an overlay of many layers, a path of many blanks.
func TestLongLines(t *testing.T) {
	layers := "rw,lowerdir=" + strings.Repeat("/var/lib/layers/0123456789abcdef:", 10_000)
	overlay := "1 0 0:1 / / rw - overlay overlay " + layers + "\n"
	table := read(t, overlay, line(2, 1, 2, "/"+strings.Repeat(`\040`, 100_000), "", "autofs"), strings.TrimSuffix(line(3, 2, 3, "/x", "", "tmpfs"), "\n"))
	if m := table.ByID(2); len(table.Mounts) != 3 || m == nil || len(m.Mountpoint) != 100_001 || m.Source != "source" || m.VFSOptions != "rw" {
		t.Errorf("%d mounts, %.40v", len(table.Mounts), m)
	}
}

// TestManyMounts reads a table as long as the kernel allows, and looks at the
// mounts on one of them.
func TestManyMounts(t *testing.T) {
	var text strings.Builder
	text.WriteString(line(1, 0, 1, "/", "", "ext4") + line(2, 1, 2, "/auto", "", "autofs"))
	const count = 100_000 // fs.mount-max
	for i := 3; i <= count; i++ {
		text.WriteString(line(i, i-1, i, fmt.Sprintf("/auto/%d", i), "shared:7", "tmpfs"))
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	begin := time.Now()
	table := read(t, text.String())
	m := table.Autofs()[0]
	if on := table.Descendants(m); len(on) != count-2 {
		t.Errorf("%d mounts on it, want %d", len(on), count-2)
	}
	if stack := table.Covers(m); len(stack) != 0 {
		t.Errorf("%d mounts cover it", len(stack))
	}
	took := time.Since(begin)
	runtime.GC()
	runtime.ReadMemStats(&after)
	t.Logf("%d mounts: %s, %d KiB", count, took, (after.HeapAlloc-before.HeapAlloc)>>10)
	if took > testenv.Patience {
		t.Errorf("it took %s", took)
	}
	runtime.KeepAlive(table)
}

func TestAutofsInOrder(t *testing.T) {
	table := read(t, line(1, 0, 1, "/", "", "ext4"), line(2, 4, 2, "/a/b/c", "", "autofs"), line(3, 1, 3, "/t", "", "tmpfs"),
		line(4, 1, 4, "/a", "", "autofs"), line(5, 1, 300, "/b", "", "autofs"))
	if got := ids(table.Autofs()); !slices.Equal(got, []int{4, 5, 2}) {
		t.Errorf("%v", got)
	}
	if got := DeviceString(DeviceOf(table.ByID(5))); got != "0:300" {
		t.Errorf("device %s", got)
	}
}

func TestReadErrors(t *testing.T) {
	for name, text := range map[string]string{
		"few fields":   "1 2 3\n",
		"no separator": "1 0 0:1 / / rw a b c d e\n",
		"no device":    "1 0 x / / rw - t s rw\n",
	} {
		if table, err := Read(strings.NewReader(text)); err == nil || !strings.HasPrefix(err.Error(), "mount table: ") {
			t.Errorf("%s: %v, %v", name, table, err)
		}
	}
	long := line(1, 0, 1, "/"+strings.Repeat("x", 60000), "", "tmpfs")
	if _, err := Read(&endless{line: long}); err == nil {
		t.Error("a table without an end was read")
	}
}

// endless is a table without an end.
type endless struct {
	line string
	at   int
}

func (e *endless) Read(b []byte) (int, error) {
	n := copy(b, e.line[e.at:])
	e.at = (e.at + n) % len(e.line)
	return n, nil
}

func TestPropagationOf(t *testing.T) {
	for optional, want := range map[string]Propagation{
		"":                              {},
		"shared:5":                      {Shared: 5},
		"master:7":                      {Master: 7},
		"shared:5 master:7":             {Shared: 5, Master: 7},
		"master:7 propagate_from:2":     {Master: 7},
		"unbindable":                    {Unbindable: true},
		"shared:x master: new:1 shared": {},
	} {
		if got := PropagationOf(&Mount{Optional: optional}); got != want {
			t.Errorf("%q: %+v, want %+v", optional, got, want)
		}
	}
}

func TestOrigins(t *testing.T) {
	private := Propagation{}
	shared := func(n int) Propagation { return Propagation{Shared: n} }
	slave := func(n int) Propagation { return Propagation{Master: n} }
	both := func(s, m int) Propagation { return Propagation{Shared: s, Master: m} }
	for name, test := range map[string]struct {
		parents []Propagation
		want    []int
	}{
		"none":                       {nil, nil},
		"one":                        {[]Propagation{private}, []int{0}},
		"private ones":               {[]Propagation{private, private}, []int{0, 1}},
		"peers":                      {[]Propagation{shared(1), shared(1), shared(1)}, []int{0}},
		"two groups":                 {[]Propagation{shared(1), shared(2), shared(1), shared(2)}, []int{0, 1}},
		"slaves":                     {[]Propagation{shared(1), slave(1), slave(1)}, []int{0}},
		"slaves of slaves":           {[]Propagation{shared(1), slave(2), both(3, 2), both(2, 1), slave(3)}, []int{0}},
		"slave of an outsider":       {[]Propagation{slave(9), slave(9)}, []int{0, 1}},
		"shared slaves of outsiders": {[]Propagation{both(1, 9), shared(1), slave(1), private}, []int{0, 3}},
	} {
		if got := Origins(test.parents); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

// TestNumberReused: the device number of an autofs mount that is gone belongs to
// what is mounted on the new one. That is not the old one on a new one.
func TestNumberReused(t *testing.T) {
	root := line(1, 0, 1, "/", "", "ext4")
	place := Place{Path: "/a", Old: 2, New: 9, Parent: 1}
	for over, want := range map[string]bool{"autofs": true, "tmpfs": false} {
		table := read(t, root, line(2, 1, 9, "/a", "", "autofs"), line(3, 2, 2, "/a", "", over))
		if got := table.beneath(place) != nil; got != want {
			t.Errorf("%s with the old number on it: a mount is beneath: %t, want %t", over, got, want)
		}
		if got := (Space{Table: table}).Shows("/a", 2); got != want {
			t.Errorf("%s with the old number: shows it: %t, want %t", over, got, want)
		}
	}
}
