package hook

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/helper"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
)

// TestNotesOnDisk: uninstall and other releases know the notes by these names,
// and what they say by this form.
func TestNotesOnDisk(t *testing.T) {
	s := store{t.TempDir()}
	init := open(t, testenv.Start(t, nil))
	m := Mount{ID: 50, Path: "/a", Device: 54}
	_, renewing := s.beginRenewing(init, &m)
	place := mounts.Place{Namespace: 1, Path: "/a", Old: 54, New: 55, Parent: 7, Kind: 1 << 18, Apart: true}
	if err := errors.Join(renewing, s.announceGate(init, 55),
		s.settle(init, &Snapshot{Mounts: []Mount{m}}, []Decision{{Cure: Reexecuted}}),
		replacingNote.of(s, init).save(replacingRecord{Version: recordVersion, Places: []mounts.Place{place}}),
		parkingNote.of(s, init, 101, 66).save(parkingRecord{Version: recordVersion, Daemon: 101, DaemonStart: 5, Namespace: 9, Mounts: []parkedTrigger{{"/a", 66, 54}}}),
		keepingNote.of(s, init, 50).save(keepingRecord{Version: recordVersion, Path: "/a", Device: 54, Holder: helper.Ref{PID: 8, StartTime: 9, Files: 1}})); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"containers/ID.gate":           "55",
		"containers/ID.50.renewing":    `{"version":1,"path":"/a","device":54}`,
		"containers/ID.json":           `{"version":1,"mounts":[{"namespace":0,"path":"/a","device":54,"mount":50,"master":"0-0"}]}`,
		"containers/ID.replacing":      `{"version":1,"places":[{"namespace":1,"path":"/a","old":54,"new":55,"parent":7,"kind":262144,"apart":true}]}`,
		"containers/ID.101.66.parking": `{"version":1,"daemon":101,"daemon_start":5,"namespace":9,"helper":{"pid":0,"start_time":0,"files":0},"mounts":[{"path":"/a","parking":66,"stale":54}]}`,
		"covers/ID.50.json":            `{"version":1,"path":"/a","device":54,"holder":{"pid":8,"start_time":9,"files":1}}`,
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
		if begins := strings.HasSuffix(text, "{") && strings.HasPrefix(string(data), text); string(data) != text && !begins || info.Mode().Perm() != 0o600 {
			t.Errorf("%s, %v: %q, want %q", name, info.Mode(), data, text)
		}
	}
}

var testNote = noteKind{"containers", ".test", "note of a test"}

// TestNoteLoad: a note is read as it was written or not at all. One that is of no
// use is removed; one that could not be read may be of use to a later run.
func TestNoteLoad(t *testing.T) {
	type form struct {
		Version int    `json:"version"`
		Word    string `json:"word"`
	}
	type result struct {
		make  func(path string) error
		want  error // nil: loaded
		say   string
		stays bool // after loadOrRemove
	}
	const good = `{"version":1,"word":"yes"}`
	file := func(text string) func(string) error {
		return func(path string) error { return os.WriteFile(path, []byte(text), 0o600) }
	}
	link := func(text string) func(string) error {
		return func(path string) error {
			return errors.Join(file(text)(path+"-target"), os.Symlink(path+"-target", path))
		}
	}
	cases := map[string]result{
		"good":            {make: file(good), stays: true},
		"more fields":     {make: file(`{"version":1,"word":"yes","x":[1]}`), stays: true},
		"none":            {make: func(string) error { return nil }, want: fs.ErrNotExist},
		"newer":           {make: file(`{"version":2,"word":7}`), want: errUnusable, say: "version 2, want 1"},
		"older":           {make: file(`{"word":"yes"}`), want: errUnusable, say: "version 0, want 1"},
		"another type":    {make: file(`{"version":1,"word":7}`), want: errUnusable, say: "string"},
		"a list":          {make: file("[]"), want: errUnusable, say: "array"},
		"not JSON":        {make: file("55\x00"), want: errUnusable, say: "invalid"},
		"two":             {make: file(good + good), want: errUnusable, say: "invalid"},
		"directory":       {make: func(path string) error { return os.Mkdir(path, 0o700) }, want: unix.EISDIR, stays: true},
		"link to a note":  {make: link(good), stays: true},
		"link to another": {make: link("{}"), want: errUnusable, say: "version 0"},
		"link to nothing": {make: func(path string) error { return os.Symlink("nothing", path) }, want: fs.ErrNotExist, stays: true},
	}
	for i := range good {
		cases["cut: "+good[:i]] = result{make: file(good[:i]), want: errUnusable, say: "unexpected end"}
	}
	init := open(t, testenv.Start(t, nil))
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			n := testNote.of(store{t.TempDir()}, init, 3)
			if err := errors.Join(os.Mkdir(n.dir, 0o700), c.make(n.path())); err != nil {
				t.Fatal(err)
			}
			there := n.exists()
			check := func(got form, err error) {
				t.Helper()
				switch {
				case !errors.Is(err, c.want) || errors.Is(err, errUnusable) != errors.Is(c.want, errUnusable):
					t.Errorf("%v, want %v", err, c.want)
				case err == nil && got.Word != "yes":
					t.Errorf("%+v", got)
				case err != nil && (!strings.HasPrefix(err.Error(), "note of a test: ") || !strings.Contains(err.Error(), n.path()) ||
					!strings.Contains(err.Error(), c.say) || strings.Contains(err.Error(), "%!")):
					t.Errorf("%v", err)
				}
			}
			var got form
			check(got, n.load(&got))
			if n.exists() != there {
				t.Error("load has removed it")
			}
			got = form{}
			check(got, n.loadOrRemove(&got))
			if n.exists() != c.stays {
				t.Errorf("there after loadOrRemove: %v", !c.stays)
			}
			if left, err := filepath.Glob(n.path() + "-target"); err != nil || len(left) != 1 && strings.HasPrefix(name, "link to a") {
				t.Errorf("what the link leads to: %v, %v", left, err)
			}
		})
	}
}

// TestNoteReplaces: a note takes the place of whatever is there but a directory,
// and is removed alone.
func TestNoteReplaces(t *testing.T) {
	init := open(t, testenv.Start(t, nil))
	for name, c := range map[string]struct {
		make          func(path string) error
		save, removed bool
	}{
		"nothing":           {func(string) error { return nil }, true, true},
		"a note":            {func(path string) error { return os.WriteFile(path, []byte("longer than the new one"), 0o644) }, true, true},
		"a link":            {func(path string) error { return os.Symlink(filepath.Dir(filepath.Dir(path))+"/outside", path) }, true, true},
		"a directory":       {func(path string) error { return os.Mkdir(path, 0o700) }, false, true},
		"a directory, full": {func(path string) error { return os.MkdirAll(path+"/x", 0o700) }, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := store{t.TempDir()}
			outside := filepath.Join(s.dir, "outside")
			n := testNote.of(s, init)
			if err := errors.Join(os.WriteFile(outside, []byte("kept"), 0o600), os.Mkdir(n.dir, 0o700), c.make(n.path())); err != nil {
				t.Fatal(err)
			}
			if err := n.save([]int{1}); (err == nil) != c.save {
				t.Errorf("save: %v", err)
			}
			if info, err := os.Lstat(n.path()); err != nil || c.save && info.Mode() != 0o600 {
				t.Errorf("%v, %v", info, err)
			}
			for range 2 {
				if err := n.remove(); (err == nil) != c.removed || n.exists() == c.removed || err != nil && !strings.HasPrefix(err.Error(), "note of a test: ") {
					t.Errorf("remove: %v", err)
				}
			}
			if data, err := os.ReadFile(outside); err != nil || string(data) != "kept" {
				t.Errorf("%q, %v", data, err)
			}
			if entries, err := os.ReadDir(n.dir); err != nil || c.removed && len(entries) != 0 {
				t.Errorf("left: %v, %v", entries, err)
			}
		})
	}
	if err := testNote.of(store{t.TempDir()}, init).save(func() {}); err == nil || !strings.HasPrefix(err.Error(), "note of a test: ") {
		t.Errorf("what has no JSON form: %v", err)
	}
}

// TestNotesAll: only the container's own, and only of the kind.
func TestNotesAll(t *testing.T) {
	s := store{t.TempDir()}
	init := open(t, testenv.Start(t, nil))
	expect := func(want ...string) {
		t.Helper()
		notes, err := testNote.all(s, init)
		var names []string
		for _, n := range notes {
			names = append(names, n.name)
		}
		if err != nil || !slices.Equal(names, want) {
			t.Errorf("%q, %v, want %q", names, err, want)
		}
		if s.hasNotes(init) != (len(want) > 0) {
			t.Errorf("hasNotes: %v", len(want) == 0)
		}
	}
	expect()
	id, dir := init.Identity(), filepath.Join(s.dir, "containers")
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
	covers := store{t.TempDir()}
	if err := writeFile(filepath.Join(covers.dir, "covers"), id+".5.json", nil); err != nil || !covers.hasNotes(init) {
		t.Errorf("what covers a mount is kept: hasNotes false (%v)", err)
	}
	if err := errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if notes, err := testNote.all(s, init); len(notes) != 0 || !errors.Is(err, unix.ENOTDIR) || !strings.HasPrefix(err.Error(), "note of a test: ") {
		t.Errorf("no directory: %v, %v", notes, err)
	}
	if !s.hasNotes(init) {
		t.Error("who cannot look must take it that there are notes")
	}
}

// TestUnusableNotes: what cannot be understood is reported, and is removed but for
// the record that each run writes anew.
func TestUnusableNotes(t *testing.T) {
	init := open(t, testenv.Start(t, nil))
	ctx := t.Context()
	for suffix, c := range map[string]struct {
		folder  string
		use     func(store, *scene) error
		removed bool
		// directory: whether an empty directory in its place goes.
		directory bool
	}{
		".replacing":    {"containers", func(s store, sc *scene) error { _, err := s.undoReplacing(ctx, init, nil); return err }, true, false},
		".5.renewing":   {"containers", func(s store, sc *scene) error { return s.finishRenewing(ctx, sc) }, true, false},
		".gate":         {"containers", func(s store, sc *scene) error { return s.finishGate(ctx, sc) }, true, false},
		".5.json":       {"covers", func(s store, sc *scene) error { return s.finishKeeping(ctx, sc) }, true, false},
		".json":         {"containers", func(s store, sc *scene) error { return s.markSettled(init, nil) }, false, false},
		".5.66.parking": {"containers", func(s store, sc *scene) error { return sc.loadParkings(s) }, true, false},
	} {
		for _, text := range []string{"", `{"version":1,"`, `{"version":2}`, `{}`, "-5", "directory"} {
			s := store{t.TempDir()}
			path := filepath.Join(s.dir, c.folder, init.Identity()+suffix)
			err := writeFile(filepath.Dir(path), filepath.Base(path), []byte(text))
			removed := c.removed
			if text == "directory" {
				err = errors.Join(err, os.Remove(path), os.Mkdir(path, 0o700))
				removed = c.directory
			}
			if err != nil {
				t.Fatal(err)
			}
			err = c.use(s, &scene{init: init, spaces: []*space{{process: init, table: &mounts.Table{}}}})
			if err == nil || strings.Contains(err.Error(), "%!") || !strings.Contains(err.Error(), path) {
				t.Errorf("%s %q: %v", suffix, text, err)
			}
			if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) != removed {
				t.Errorf("%s %q: removed %v", suffix, text, !removed)
			}
		}
	}
}

// TestBegun: what a killed run has noted is not noted over by the next one, which
// could not finish it.
func TestBegun(t *testing.T) {
	s := store{t.TempDir()}
	init := open(t, testenv.Start(t, nil))
	m := Mount{ID: 50, Path: "/a", Device: 54}
	_, renewing := s.beginRenewing(init, &m)
	if err := errors.Join(renewing, s.announceGate(init, 55), keepingNote.of(s, init, m.ID).save(keepingRecord{Version: recordVersion})); err != nil {
		t.Fatal(err)
	}
	_, renewing = s.beginRenewing(init, &m)
	_, keep := s.keep(t.Context(), init, init, &m)
	for what, err := range map[string]error{"a restart": renewing, "a gate": s.announceGate(init, 56), "covers": keep} {
		if !errors.Is(err, errBegun) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if data, err := gateNote.of(s, init).read(); err != nil || string(data) != "55" {
		t.Errorf("the gate's note is %q, %v", data, err)
	}
}
