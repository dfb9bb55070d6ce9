package journal

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container/containertest"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// TestConfirmed: a cured mount is confirmed for the next run unless it has changed.
func TestConfirmed(t *testing.T) {
	s := NewStore(t.TempDir())
	init, another := testproc.Open(t, testenv.Start(t, nil)), testproc.Open(t, testenv.Start(t, nil))
	before := &container.Snapshot{Mounts: []container.Mount{
		at("/reexecuted", nil), at("/healthy", nil), at("/unrepaired", nil), at("/before", func(m *container.Mount) { m.Confirmed = true }),
		at("/restarted", nil), at("/reloaded", nil), at("/preserved", nil),
		at("/number", func(m *container.Mount) { m.DeviceBefore = m.Device }), // preserved by a run that was killed
	}}
	var decisions []plan.Decision
	for _, cure := range []plan.Cure{plan.Reexecuted, plan.Healthy, plan.Unrepaired, plan.Healthy, plan.Restarted, plan.Reloaded, plan.Preserved, plan.Healthy} {
		decisions = append(decisions, plan.Decision{Cure: cure})
	}
	if err := s.MarkConfirmed(init, before.Mounts[:1]); err != nil || before.Mounts[0].Confirmed {
		t.Errorf("before: %+v, %v", before.Mounts[0], err)
	}
	for range 2 {
		if err := s.SetConfirmed(init, plan.Known(before, decisions)); err != nil {
			t.Fatal(err)
		}
	}
	cured := []string{"/reexecuted", "/before", "/restarted", "/reloaded", "/preserved", "/number"}
	expectConfirmed(t, s, init, cured, slices.Clone(before.Mounts))
	for name, change := range map[string]func(*container.Mount){
		"device":          func(m *container.Mount) { m.Device++ },
		"mount":           func(m *container.Mount) { m.ID++ },
		"master":          func(m *container.Mount) { m.Master.PID++ },
		"master's number": func(m *container.Mount) { m.Master.StartTime++ }, // another process with it
		"namespace":       func(m *container.Mount) { m.Namespace++ },
		"path":            func(m *container.Mount) { m.Path += "x" },
	} {
		list := slices.Clone(before.Mounts)
		change(&list[0])
		expectConfirmed(t, s, init, cured[1:], list)
		if t.Failed() {
			t.Fatalf("after a change of the %s", name)
		}
	}
	info, err := os.Stat(filepath.Join(s.dir, "containers", init.Identity()+".json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	// Another container has its own ledger, and none without confirmed mounts.
	list := slices.Clone(before.Mounts)
	if err := s.MarkConfirmed(another, list); err != nil || list[1].Confirmed {
		t.Errorf("of another container: %+v, %v", list[1], err)
	}
	if err := s.SetConfirmed(another, plan.Known(before, decisions[1:3])); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(filepath.Join(s.dir, "containers")); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
}

// at returns a mount of a systemd at a path. change, which may be nil, changes it.
func at(path string, change func(*container.Mount)) container.Mount {
	m := containertest.SystemdMount(change)
	m.Path, m.ID, m.Master.StartTime = path, 7, 500
	return m
}

// expectConfirmed checks which mounts MarkConfirmed marks, by path.
func expectConfirmed(t *testing.T, s Store, init *nsenter.Process, want []string, list []container.Mount) {
	t.Helper()
	for i := range list {
		list[i].Confirmed = i%2 == 0 // is overwritten
	}
	if err := s.MarkConfirmed(init, list); err != nil {
		t.Error(err)
	}
	var got []string
	for _, m := range list {
		if m.Confirmed {
			got = append(got, m.Path)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("confirmed %q, want %q", got, want)
	}
}

// TestAddConfirmed: mounts are added to the ledger once, even if it cannot be decoded.
func TestAddConfirmed(t *testing.T) {
	s := NewStore(t.TempDir())
	init := testproc.Open(t, testenv.Start(t, nil))
	known, early := containertest.SystemdMount(nil), containertest.SystemdMount(func(m *container.Mount) { m.Path = "/early" })
	if err := s.AddConfirmed(init, nil); err != nil || s.HasEntries(init) {
		t.Errorf("nothing: %v", err)
	}
	if err := s.SetConfirmed(init, plan.Known(&container.Snapshot{Mounts: []container.Mount{known}}, []plan.Decision{{Cure: plan.Reexecuted}})); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.AddConfirmed(init, []*container.Mount{&early}); err != nil {
			t.Fatal(err)
		}
	}
	list := []container.Mount{known, early, containertest.SystemdMount(func(m *container.Mount) { m.Path = "/other" })}
	if err := s.MarkConfirmed(init, list); err != nil || !list[0].Confirmed || !list[1].Confirmed || list[2].Confirmed {
		t.Errorf("%v: %+v", err, list)
	}
	path := filepath.Join(s.dir, "containers", init.Identity()+".json")
	if data, err := os.ReadFile(path); err != nil || strings.Count(string(data), "/early") != 1 {
		t.Errorf("%v: %s", err, data)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	list = []container.Mount{early}
	if err := s.AddConfirmed(init, []*container.Mount{&early}); err != nil {
		t.Error(err)
	}
	if err := s.MarkConfirmed(init, list); err != nil || !list[0].Confirmed {
		t.Errorf("after a damaged ledger: %v", err)
	}
}

// TestLedgerVersion: a ledger of another version is ignored, with an error.
func TestLedgerVersion(t *testing.T) {
	s := NewStore(t.TempDir())
	init := testproc.Open(t, testenv.Start(t, nil))
	m := containertest.SystemdMount(nil)
	if err := s.SetConfirmed(init, plan.Known(&container.Snapshot{Mounts: []container.Mount{m}}, []plan.Decision{{Cure: plan.Reexecuted}})); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(s.dir, "containers", init.Identity()+".json")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"newer": strings.Replace(string(data), `"version":1`, `"version":2`, 1),
		"none":  strings.Replace(string(data), `"version":1`, `"version":0`, 1), "cut": string(data[:len(data)/2]), "empty": "", "a list": "[]",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		list := []container.Mount{m}
		if err := s.MarkConfirmed(init, list); err == nil || !strings.HasPrefix(err.Error(), "ledger of repaired mounts: not of this version") ||
			strings.Contains(err.Error(), "%!") || list[0].Confirmed {
			t.Errorf("%s: %v, confirmed %v", name, err, list[0].Confirmed)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.MarkConfirmed(init, []container.Mount{m}); err == nil {
		t.Error("a directory was read")
	}
}
