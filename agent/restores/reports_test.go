package restores

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// write writes a report as the program does: under another name first.
func write(t *testing.T, dir, container string, pid int) {
	t.Helper()
	data, err := json.Marshal(report.Report{Container: container, PID: pid, Outcome: report.Repaired, Trigger: "criu:post-resume"})
	if err != nil {
		t.Fatal(err)
	}
	temporary := filepath.Join(dir, container+".json.1.2")
	if err := os.WriteFile(temporary, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(temporary, filepath.Join(dir, container+".json")); err != nil {
		t.Fatal(err)
	}
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	d := reports(dir)
	write(t, dir, "c1", 42)
	r, err := d.read("c1")
	if err != nil || r.PID != 42 || r.Outcome != report.Repaired || time.Since(r.at) > time.Minute {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := d.read("c2"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a report that is not there: %v", err)
	}
	for _, name := range []string{"", ".", "..", "../reports/c1", "a/b", ".hidden", strings.Repeat("a", 201), "a\x00b"} {
		if r, err := d.read(name); err == nil {
			t.Errorf("read(%q) = %+v, want an error", name, r)
		}
	}
	for name, text := range map[string]string{"empty": "", "text": "repaired", "nothing": "{}", "list": "[]", "cut": `{"outcome":"rep`} {
		if err := os.WriteFile(filepath.Join(dir, name+".json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := d.read(name); err == nil {
			t.Errorf("%s: %+v, want an error", name, r)
		}
	}
	large, err := os.Create(filepath.Join(dir, "large.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer large.Close()
	if err := large.Truncate(1 << 40); err != nil {
		t.Fatal(err)
	}
	if _, err := d.read("large"); err == nil || !strings.Contains(err.Error(), "longer") {
		t.Errorf("a report of a terabyte: %v", err)
	}
	if err := os.Symlink("c1.json", filepath.Join(dir, "link.json")); err != nil {
		t.Fatal(err)
	}
	if _, err := d.read("link"); err == nil {
		t.Error("a link is followed")
	}
}

func TestIsAbout(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	p, err := nsenter.Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for name, test := range map[string]struct {
		pid     int
		written time.Duration // from now
		want    bool
	}{
		"now":             {p.PID(), 0, true},
		"before":          {p.PID(), -2 * time.Second, false},
		"another process": {p.PID() + 1, 0, false},
	} {
		r := written{&report.Report{PID: test.pid}, time.Now().Add(test.written)}
		if got := r.isAbout(p); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

// TestWatch has a report from before, one that is written, and things that are
// none.
func TestWatch(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "reports")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "before", 1)
	ctx, cancel := context.WithCancel(t.Context())
	found, ready, ended := make(chan string, 100), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- reports(dir).watch(ctx, func() { close(ready) }, func(name string) { found <- name })
	}()
	<-ready
	if err := os.WriteFile(filepath.Join(dir, "other.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "after", 2)
	write(t, dir, "before", 3)
	var got []string
	for len(got) < 3 {
		select {
		case name := <-found:
			got = append(got, name)
		case <-time.After(5 * time.Second):
			t.Fatalf("only %q were found", got)
		}
	}
	if want := []string{"before", "after", "before"}; !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
}

// TestWatchEnds: a folder that is removed is not watched in silence.
func TestWatchEnds(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "reports")
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- reports(dir).watch(t.Context(), func() { close(ready) }, func(string) {}) }()
	<-ready
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "removed") {
			t.Errorf("%v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("it goes on")
	}
}
