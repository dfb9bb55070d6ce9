package criuimage

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var filesHead = []uint32{magicCommon, magicFiles}

// watch is a valid inotify_wd_entry with fields replaced or, if their value is nil,
// left out.
func watch(path string, mount int, change ...field) []byte {
	handle := []field{{1, 8}, {2, 1}, {3, 17}, {3, 0}}
	if path != "" {
		handle = append(handle, field{4, path})
	}
	if mount != 0 {
		handle = append(handle, field{5, mount})
	}
	fields := []field{{1, 5}, {2, 4711}, {3, 0x2}, {4, 0}, {5, 38}, {6, 1}, {7, string(encode(handle...))}}
	return encode(replace(fields, change)...)
}

// fileEntry is the file_entry of an inotify file with these watches.
func fileEntry(watches ...[]byte) []byte {
	inotify := []field{{1, 5}, {2, 0x800}, {4, ""}}
	for _, w := range watches {
		inotify = append(inotify, field{5, string(w)})
	}
	return encode(field{1, typeInotify}, field{2, 5}, field{13, string(encode(inotify...))})
}

func groupMount(change ...field) []byte {
	return encode(replace([]field{{1, fstypeCgroup2}, {2, 302}, {3, 38}, {4, 300}, {5, 0}, {6, "/"}, {7, "/sys/fs/cgroup"}, {8, "cgroup2"}, {9, "rw"}}, change)...)
}

func TestReadWatches(t *testing.T) {
	regular := encode(field{1, 1}, field{2, 4}, field{3, "reg"})
	got, err := ReadWatches(write(t, map[string][]byte{
		"mountpoints-12.img": image(mountsHead, root(), entry(), groupMount()),
		"mountpoints-13.img": image(mountsHead, root(), groupMount(field{2, 402}, field{6, "/sub"}, field{7, "/groups"})),
		"files.img": image(filesHead, regular,
			fileEntry(watch("/sys/fs/cgroup/init.scope/cgroup.events", 302), watch("/etc/localtime", 300)),
			fileEntry(watch("", 0, field{2, 1 << 40})), fileEntry()),
		"timens-0.img": image(clocksHead, clocks(6e8, 7e8)),
		"timens-9.img": image(clocksHead, clocks(5e8, 8e8)),
	}))
	want := &Watched{
		Watches: []Watch{
			{Path: "/sys/fs/cgroup/init.scope/cgroup.events", MountID: 302, Device: 38, Inode: 4711},
			{Path: "/etc/localtime", MountID: 300, Device: 38, Inode: 4711},
			{Device: 38, Inode: 1 << 40},
		},
		Groups:    map[uint32]GroupMount{302: {MountPoint: "/sys/fs/cgroup", Root: "/"}, 402: {MountPoint: "/groups", Root: "/sub"}},
		Fractions: map[int]time.Duration{unix.CLOCK_MONOTONIC: 600 * time.Millisecond, unix.CLOCK_BOOTTIME: 800 * time.Millisecond},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v\nwant %+v", got, err, want)
	}
	if got, err := ReadWatches(write(t, map[string][]byte{"mountpoints-1.img": image(mountsHead, root())})); err != nil || len(got.Watches) != 0 {
		t.Errorf("no file of open files: %+v, %v", got, err)
	}
	spoiled := map[string][]byte{
		"mountpoints-1.img": image(mountsHead, root()),
		"timens-0.img":      image(clocksHead, clocks(1, 1)), "timens-7.img": nil,
	}
	if got, err := ReadWatches(write(t, spoiled)); err != nil || len(got.Fractions) != 0 {
		t.Errorf("an image of clocks is empty: %+v, %v", got, err)
	}
	if _, err := ReadWatches(write(t, nil)); !errors.Is(err, ErrNoImages) {
		t.Errorf("no images: %v", err)
	}
}

// TestRealWatches reads the image that CRIU 4.1.1 made of a Debian 12 container with
// systemd 252 under runc 1.1.15.
func TestRealWatches(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "files.img"))
	if err != nil {
		t.Fatal(err)
	}
	f := file{name: "files.img", data: data}
	watches, err := f.decodeWatches()
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, w := range watches {
		paths = append(paths, w.Path)
	}
	for _, want := range []string{
		"/sys/fs/cgroup/system.slice/mnt-covered.mount/cgroup.events", "/sys/fs/cgroup/system.slice/system-modprobe.slice/cgroup.events",
		"/sys/fs/cgroup/init.scope/cgroup.events", "/etc/localtime", "/run/systemd/ask-password", "/",
	} {
		if !strings.Contains(strings.Join(paths, "\n")+"\n", want+"\n") {
			t.Errorf("%s is not among %q", want, paths)
		}
	}
}

// timerEntry is the file_entry of a timer.
func timerEntry(flags, seconds, nanoseconds int) []byte {
	return encode(field{1, typeTimer}, field{2, 6}, field{12, string(encode(
		field{1, 6}, field{2, 0x800}, field{3, ""}, field{4, 1}, field{5, 0}, field{6, flags}, field{7, seconds}, field{8, nanoseconds}, field{9, 0}, field{10, 0}))})
}

func TestDecodeTimers(t *testing.T) {
	real, err := os.ReadFile(filepath.Join("testdata", "files.img"))
	if err != nil {
		t.Fatal(err)
	}
	const watchesClock = 3 // systemd's watch on clock changes
	for name, test := range map[string]struct {
		data []byte
		want time.Duration
	}{
		"none":                     {image(filesHead, fileEntry()), 0},
		"the least":                {image(filesHead, timerEntry(1, 90, 0), timerEntry(1, 2, 5e8), timerEntry(1, 3, 0)), 2500 * time.Millisecond},
		"not set":                  {image(filesHead, timerEntry(1, 0, 0)), 0},
		"others":                   {image(filesHead, timerEntry(watchesClock, 1, 0), timerEntry(0, 1, 0)), 0},
		"for ever":                 {image(filesHead, timerEntry(1, math.MaxInt64, 0)), (math.MaxInt64/time.Second - 1) * time.Second},
		"a limit for mount events": {real, 815197209},
	} {
		f := file{name: "files.img", data: test.data}
		if got, err := f.decodeTimers(); err != nil || got != test.want {
			t.Errorf("%s: %v, %v; want %v", name, got, err, test.want)
		}
	}
}

// clocks is a timens_entry with these nanoseconds of the clocks.
func clocks(monotonic, boottime int) []byte {
	timespec := func(nanoseconds int) string { return string(encode(field{1, 4711}, field{2, nanoseconds})) }
	return encode(field{1, timespec(monotonic)}, field{2, timespec(boottime)})
}

func TestDecodeClocksErrors(t *testing.T) {
	for name, test := range map[string]struct {
		data  []byte
		want  error
		field string
	}{
		"other kind":           {image(filesHead), ErrMagic, ""},
		"more than a second":   {image(clocksHead, clocks(1e9, 0)), ErrRange, "tv_nsec"},
		"not a number":         {image(clocksHead, encode(field{1, string(encode(field{2, "x"}))})), ErrRange, "tv_nsec"},
		"an entry that is cut": {image(clocksHead, encode(field{2, "\xff"})), ErrEncoding, ""},
	} {
		f := file{name: "timens-0.img", data: test.data}
		var format *FormatError
		if err := f.decodeClocks(map[int]time.Duration{}); !errors.Is(err, test.want) || !errors.As(err, &format) || format.Field != test.field {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDecodeWatchesErrors(t *testing.T) {
	one := func(w []byte) []byte { return image(filesHead, fileEntry(w)) }
	for name, test := range map[string]struct {
		data  []byte
		want  error
		field string
	}{
		"other kind":         {image(mountsHead), ErrMagic, ""},
		"no handle":          {one(watch("", 0, field{7, nil})), ErrMissing, "f_handle"},
		"handle is a number": {one(watch("", 0, field{7, 5})), ErrMissing, "f_handle"},
		"device of 64 bits":  {one(watch("", 0, field{5, 1 << 40})), ErrRange, "s_dev"},
		"device is a text":   {one(watch("", 0, field{5, "x"})), ErrRange, "s_dev"},
		"mount of 64 bits":   {one(watch("/a", 1<<40)), ErrRange, "mnt_id"},
		"long path":          {one(watch("/"+strings.Repeat("a", maxPath), 1)), ErrTooLarge, "path"},
		"NUL in the path":    {one(watch("/a\x00b", 1)), ErrRange, "path"},
		"broken watch":       {one([]byte{0xff}), ErrEncoding, ""},
		"broken handle":      {one(watch("", 0, field{7, "\x22\x7fa"})), ErrEncoding, "4"},
		"broken file":        {image(filesHead, encode(field{1, typeInotify}, field{13, "\x2a\x7f"})), ErrEncoding, "5"},
	} {
		f := file{name: "files.img", data: test.data}
		watches, err := f.decodeWatches()
		var format *FormatError
		if watches != nil || !errors.Is(err, test.want) || !errors.As(err, &format) || format.Field != test.field {
			t.Errorf("%s: %v, %v; want %v in field %q", name, watches, err, test.want, test.field)
		}
	}
}

// TestManyWatches has more in one record than other kinds of image may have.
func TestManyWatches(t *testing.T) {
	const count = 100000
	path := "/sys/fs/cgroup/" + strings.Repeat("a", 100)
	watches := make([][]byte, count)
	for i := range watches {
		watches[i] = watch(path, 302)
	}
	f := file{name: "files.img", data: image(filesHead, fileEntry(watches...))}
	if got, err := f.decodeWatches(); err != nil || len(got) != count {
		t.Errorf("%d watches, %v", len(got), err)
	}
	f.data = image(mountsHead, encode(field{1, 1}, field{2, 300}, field{4, 1}, field{9, strings.Repeat("a", maxRecord)}))
	if err := f.decodeGroupMounts(map[uint32]GroupMount{}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a mount of more than %d bytes: %v", maxRecord, err)
	}
}

func TestDecodeGroupMountsErrors(t *testing.T) {
	for name, test := range map[string]struct {
		change field
		want   error
	}{
		"no id":                {field{2, nil}, ErrMissing},
		"no mount point":       {field{7, nil}, ErrMissing},
		"relative mount point": {field{7, "sys"}, ErrMountPoint},
		"dot dot":              {field{7, "/sys/../etc"}, ErrMountPoint},
		"no root":              {field{6, nil}, ErrMissing},
	} {
		f := file{name: "mountpoints-1.img", data: image(mountsHead, groupMount(test.change))}
		if err := f.decodeGroupMounts(map[uint32]GroupMount{}); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}
