package hook

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
)

// FuzzState: the container state on a hook's standard input, whose annotations may come
// from a container image.
func FuzzState(f *testing.F) {
	f.Add("createRuntime", []byte(`{"ociVersion":"1.2.0","id":"c1","status":"stopped","pid":12,"bundle":"/b"}`))
	f.Add("poststart", []byte(`{"id":"../../etc","pid":-1,"annotations":{"a":"b"}}`))
	f.Add("poststop", []byte(`[]`))
	f.Fuzz(func(t *testing.T, stage string, data []byte) {
		state, err := ReadState(bytes.NewReader(data))
		if err != nil {
			if strings.ContainsAny(err.Error(), "\x00\n") {
				t.Errorf("an error of several lines: %q", err)
			}
			return
		}
		e, ours, err := StageEvent(stage, state)
		switch {
		case err != nil && ours:
			t.Errorf("an error and work: %+v", e)
		case ours && e.PID <= 0:
			t.Errorf("work without a process: %+v", e)
		case ours && e.ImageDir != "":
			t.Errorf("images named by a container: %+v", e)
		}
	})
}

// FuzzReportName: no name of a container makes a report leave the folder of reports.
func FuzzReportName(f *testing.F) {
	for _, name := range []string{"c1", "../x", "a/b", ".", "..", "", "\x00", "a\nb", strings.Repeat("x", 300)} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		dir := t.TempDir()
		if err := journal.NewStore(dir).SaveReport(fileName(name), nil); err != nil {
			return
		}
		names, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(names) != 1 || filepath.Base(names[0]) != "reports" {
			t.Fatalf("container %q: written to %q (%v)", name, names, err)
		}
		entries, err := os.ReadDir(names[0])
		if err != nil || len(entries) != 1 || !entries[0].Type().IsRegular() {
			t.Fatalf("container %q: reports %v (%v)", name, entries, err)
		}
	})
}
