package journal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/helper/fdstore"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"

	"golang.org/x/sys/unix"
)

// TestFiles: the names and forms of the entries, which other releases read.
func TestFiles(t *testing.T) {
	s := NewStore(t.TempDir())
	init := testproc.Open(t, testenv.Start(t, nil))
	place := mounts.Place{Namespace: 1, Path: "/a", Old: 54, New: 55, Parent: 7, Kind: 1 << 18, LeavesPeers: true}
	m := container.Mount{ID: 50, Path: "/a", Device: 54}
	_, restart := UnitRestarts.Begin(s, init, UnitRestart{Path: "/a", Device: 54}, 50)
	_, waiters := WaiterParkings.Begin(s, init, WaiterParking{Device: 55})
	if err := errors.Join(restart, waiters, s.SetConfirmed(init, []*container.Mount{&m}),
		Replacements.Of(s, init).Save(Replacement{Places: []mounts.Place{place}}),
		TriggerParkings.Of(s, init, 101, 66).Save(TriggerParking{Parking: container.Parking{Daemon: 101, DaemonStart: 5, Mounts: []container.ParkedTrigger{{Path: "/a", Parking: 66, Stale: 54}}}, Namespace: 9}),
		Covers.Of(s, init, 50).Save(SavedCovers{Path: "/a", Device: 54, Helper: fdstore.Ref{PID: 8, StartTime: 9, Files: 1}}),
		s.SaveReport("c1", []byte("{}"))); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"containers/ID.gate":           `{"version":1,"device":55}`,
		"containers/ID.50.renewing":    `{"version":1,"path":"/a","device":54}`,
		"containers/ID.json":           `{"version":1,"mounts":[{"namespace":0,"path":"/a","device":54,"mount":50,"master":"0-0"}]}`,
		"containers/ID.replacing":      `{"version":1,"places":[{"namespace":1,"path":"/a","old":54,"new":55,"parent":7,"kind":262144,"apart":true}]}`,
		"containers/ID.101.66.parking": `{"version":1,"daemon":101,"daemon_start":5,"mounts":[{"path":"/a","parking":66,"stale":54}],"namespace":9,"helper":{"pid":0,"start_time":0,"files":0}}`,
		"covers/ID.50.json":            `{"version":1,"path":"/a","device":54,"holder":{"pid":8,"start_time":9,"files":1}}`,
		"reports/c1.json":              "{}",
	}
	files, err := filepath.Glob(filepath.Join(s.dir, "*", "*"))
	if err != nil || len(files) != len(want) {
		t.Errorf("%q, %v", files, err)
	}
	for name, text := range want {
		path := filepath.Join(s.dir, strings.Replace(name, "ID", init.Identity(), 1))
		data, err := os.ReadFile(path)
		info, err2 := os.Lstat(path)
		if err := errors.Join(err, err2); err != nil {
			t.Error(err)
			continue
		}
		if string(data) != text || info.Mode().Perm() != 0o600 {
			t.Errorf("%s, %v: %q, want %q", name, info.Mode(), data, text)
		}
	}
}

// TestPending: uninstall keeps pending entries only.
func TestPending(t *testing.T) {
	for name, want := range map[string]bool{
		"containers/1-2.gate": true, "containers/1-2.50.renewing": true, "containers/1-2.replacing": true, "containers/1-2.3.4.parking": true,
		"containers/1-2.json": false, "covers/1-2.50.json": true, "locks/1-2": true, "restores/1-2.json": false, "reports/c1.json": false,
	} {
		folder, file := filepath.Split(name)
		if got := Pending(strings.TrimSuffix(folder, "/"), file); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

type word struct {
	Word string `json:"word"`
}

var testKind = &Kind[word]{folder: containersFolder, suffix: ".test", version: 1, label: "entry of a test"}

// loadTest is a file and the result of loading it.
type loadTest struct {
	make  func(path string) error
	want  error  // nil for success
	say   string // part of the error
	stays bool   // after Load
}

// loadTests returns files of all kinds, by description.
func loadTests() map[string]loadTest {
	const good = `{"version":1,"word":"yes"}`
	file := func(text string) func(string) error {
		return func(path string) error { return os.WriteFile(path, []byte(text), 0o600) }
	}
	link := func(text string) func(string) error {
		return func(path string) error {
			return errors.Join(file(text)(path+"-target"), os.Symlink(path+"-target", path))
		}
	}
	tests := map[string]loadTest{
		"good":             {make: file(good), stays: true},
		"more fields":      {make: file(`{"version":1,"word":"yes","x":[1]}`), stays: true},
		"none":             {make: func(string) error { return nil }, want: fs.ErrNotExist},
		"newer":            {make: file(`{"version":2,"word":7}`), want: errUnusable, say: "version 2, want 1"},
		"older":            {make: file(`{"word":"yes"}`), want: errUnusable, say: "version 0, want 1"},
		"another type":     {make: file(`{"version":1,"word":7}`), want: errUnusable, say: "string"},
		"a list":           {make: file("[]"), want: errUnusable, say: "array"},
		"a number":         {make: file("55"), want: errUnusable, say: "number"},
		"not JSON":         {make: file("55\x00"), want: errUnusable, say: "invalid"},
		"two":              {make: file(good + good), want: errUnusable, say: "invalid"},
		"directory":        {make: func(path string) error { return os.Mkdir(path, 0o700) }, want: unix.EISDIR, stays: true},
		"link to an entry": {make: link(good), stays: true},
		"link to another":  {make: link("{}"), want: errUnusable, say: "version 0"},
		"link to nothing":  {make: func(path string) error { return os.Symlink("nothing", path) }, want: fs.ErrNotExist, stays: true},
	}
	for i := range good {
		tests["cut: "+good[:i]] = loadTest{make: file(good[:i]), want: errUnusable, say: "unexpected end"}
	}
	return tests
}

// TestLoad: an entry is loaded completely or not at all. Load removes an entry that cannot
// be decoded, and keeps one that cannot be read.
func TestLoad(t *testing.T) {
	init := testproc.Open(t, testenv.Start(t, nil))
	for name, c := range loadTests() {
		t.Run(name, func(t *testing.T) {
			e := testKind.Of(NewStore(t.TempDir()), init, 3)
			if err := errors.Join(os.Mkdir(e.dir, 0o700), c.make(e.path())); err != nil {
				t.Fatal(err)
			}
			existed := e.Exists()
			check := func(got word, err error) {
				t.Helper()
				switch {
				case !errors.Is(err, c.want) || errors.Is(err, errUnusable) != errors.Is(c.want, errUnusable):
					t.Errorf("%v, want %v", err, c.want)
				case err == nil && got.Word != "yes", err != nil && got != word{}:
					t.Errorf("%+v", got)
				case err != nil && (!strings.HasPrefix(err.Error(), "entry of a test: ") || !strings.Contains(err.Error(), e.path()) ||
					!strings.Contains(err.Error(), c.say) || strings.Contains(err.Error(), "%!")):
					t.Errorf("%v", err)
				}
			}
			check(e.Peek())
			if e.Exists() != existed {
				t.Error("removed by Peek")
			}
			check(e.Load())
			if e.Exists() != c.stays {
				t.Errorf("after Load it exists: %v", !c.stays)
			}
			if left, err := filepath.Glob(e.path() + "-target"); err != nil || len(left) != 1 && strings.HasPrefix(name, "link to a") {
				t.Errorf("target of the link: %v, %v", left, err)
			}
		})
	}
}

// TestSave: an entry replaces a file or link, but not a directory. Its removal removes
// nothing else.
func TestSave(t *testing.T) {
	init := testproc.Open(t, testenv.Start(t, nil))
	for name, c := range map[string]struct {
		make          func(path string) error
		save, removed bool
	}{
		"nothing":           {func(string) error { return nil }, true, true},
		"an entry":          {func(path string) error { return os.WriteFile(path, []byte("longer than the new one, by far"), 0o644) }, true, true},
		"a link":            {func(path string) error { return os.Symlink(filepath.Dir(filepath.Dir(path))+"/outside", path) }, true, true},
		"a directory":       {func(path string) error { return os.Mkdir(path, 0o700) }, false, true},
		"a directory, full": {func(path string) error { return os.MkdirAll(path+"/x", 0o700) }, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewStore(t.TempDir())
			outside := filepath.Join(s.dir, "outside")
			e := testKind.Of(s, init)
			if err := errors.Join(os.WriteFile(outside, []byte("kept"), 0o600), os.Mkdir(e.dir, 0o700), c.make(e.path())); err != nil {
				t.Fatal(err)
			}
			if err := e.Save(word{"x"}); (err == nil) != c.save {
				t.Errorf("save: %v", err)
			}
			if info, err := os.Lstat(e.path()); err != nil || c.save && info.Mode() != 0o600 {
				t.Errorf("%v, %v", info, err)
			}
			for range 2 {
				if err := e.Commit(); (err == nil) != c.removed || e.Exists() == c.removed || err != nil && !strings.HasPrefix(err.Error(), "entry of a test: ") {
					t.Errorf("commit: %v", err)
				}
			}
			if data, err := os.ReadFile(outside); err != nil || string(data) != "kept" {
				t.Errorf("%q, %v", data, err)
			}
			if entries, err := os.ReadDir(e.dir); err != nil || c.removed && len(entries) != 0 {
				t.Errorf("left: %v, %v", entries, err)
			}
		})
	}
	odd := &Kind[func()]{folder: containersFolder, suffix: ".odd", version: 1, label: "odd entry"}
	if err := odd.Of(NewStore(t.TempDir()), init).Save(func() {}); err == nil || !strings.HasPrefix(err.Error(), "odd entry: ") {
		t.Errorf("content without a JSON form: %v", err)
	}
}

// TestAll: only entries of the kind, and only about the process.
func TestAll(t *testing.T) {
	s := NewStore(t.TempDir())
	init := testproc.Open(t, testenv.Start(t, nil))
	expect := func(want ...string) {
		t.Helper()
		entries, err := testKind.All(s, init)
		var names []string
		for _, e := range entries {
			names = append(names, e.name)
		}
		if err != nil || !slices.Equal(names, want) {
			t.Errorf("%q, %v, want %q", names, err, want)
		}
		if s.HasEntries(init) != (len(want) > 0) {
			t.Errorf("HasEntries: %v", len(want) == 0)
		}
	}
	expect()
	id, dir := init.Identity(), filepath.Join(s.dir, containersFolder)
	write := func(names ...string) {
		for _, name := range names {
			if err := writeFile(dir, name, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(id+"0.1.test", "1"+id+".1.test", "README")
	expect()
	write(id+".9.test", id+".10.test", id+".9.test.1.2.tmp", id+".9.testing", id+".json")
	if err := os.Mkdir(filepath.Join(dir, id+".8.test"), 0o700); err != nil {
		t.Fatal(err)
	}
	expect(id+".10.test", id+".8.test", id+".9.test")
	covers := NewStore(t.TempDir())
	if err := writeFile(filepath.Join(covers.dir, coversFolder), id+".5.json", nil); err != nil || !covers.HasEntries(init) {
		t.Errorf("with saved covers: HasEntries false (%v)", err)
	}
	if err := errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if entries, err := testKind.All(s, init); len(entries) != 0 || !errors.Is(err, unix.ENOTDIR) || !strings.HasPrefix(err.Error(), "entry of a test: ") {
		t.Errorf("no directory: %v, %v", entries, err)
	}
	if !s.HasEntries(init) {
		t.Error("a folder that cannot be listed may have entries")
	}
}

// TestBegin: an intent does not replace another one, which is needed for a recovery.
func TestBegin(t *testing.T) {
	s := NewStore(t.TempDir())
	init := testproc.Open(t, testenv.Start(t, nil))
	if _, err := testKind.Begin(s, init, word{"first"}, 5); err != nil {
		t.Fatal(err)
	}
	if e, err := testKind.Begin(s, init, word{"second"}, 5); !errors.Is(err, ErrPending) || e != nil {
		t.Errorf("%v, %v", e, err)
	}
	if got, err := testKind.Of(s, init, 5).Load(); err != nil || got.Word != "first" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := testKind.Begin(s, init, word{"another"}, 6); err != nil {
		t.Error(err)
	}
}

// TestLegacy: an intent of the release before is loaded.
func TestLegacy(t *testing.T) {
	e := WaiterParkings.Of(NewStore(t.TempDir()), testproc.Open(t, testenv.Start(t, nil)))
	for text, want := range map[string]uint64{"62": 62, `{"version":1,"device":63}`: 63, "": 0, "-5": 0, "62x": 0} {
		if err := writeFile(e.dir, e.name, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := e.Load(); got.Device != want || errors.Is(err, errUnusable) != (want == 0) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}
