package cure

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
)

// TestRecoveryOrder: the recoveries depend on their order (recover.go).
func TestRecoveryOrder(t *testing.T) {
	want := []string{
		"undo the replacement of mounts",
		"finish the removal of mounts",
		"finish the restart of units",
		"undo the parking of waiters",
		"finish the reload of automount",
	}
	var got []string
	for _, r := range recoveries {
		got = append(got, string(r.direction)+" "+r.operation)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestUnusableEntries: an entry that cannot be decoded is reported and removed; one that
// cannot be read stays.
func TestUnusableEntries(t *testing.T) {
	init := testproc.Open(t, testenv.Start(t, nil))
	for suffix, c := range map[string]struct {
		folder  string
		recover func(*Session) error
	}{
		".replacing":    {"containers", func(s *Session) error { _, err := s.undoReplacement(t.Context(), nil); return err }},
		".5.renewing":   {"containers", func(s *Session) error { return s.copyRestarted(t.Context()) }},
		".gate":         {"containers", func(s *Session) error { return s.removeWaiterParking(t.Context()) }},
		".5.json":       {"covers", func(s *Session) error { return s.restoreCovers(t.Context()) }},
		".5.66.parking": {"containers", func(s *Session) error { return s.loadParkings((*journal.Entry[journal.TriggerParking]).Load) }},
	} {
		for _, text := range []string{"", `{"version":1,"`, `{"version":2}`, `{}`, "-5", "directory"} {
			dir := t.TempDir()
			path := filepath.Join(dir, c.folder, init.Identity()+suffix)
			err := os.Mkdir(filepath.Dir(path), 0o700)
			if text == "directory" {
				err = errors.Join(err, os.Mkdir(path, 0o700))
			} else {
				err = errors.Join(err, os.WriteFile(path, []byte(text), 0o600))
			}
			if err != nil {
				t.Fatal(err)
			}
			err = c.recover(NewSession(&container.Container{Init: init, Spaces: []*container.Space{{Process: init, Table: &mounts.Table{}}}}, journal.NewStore(dir), nil))
			if err == nil || strings.Contains(err.Error(), "%!") || !strings.Contains(err.Error(), path) {
				t.Errorf("%s %q: %v", suffix, text, err)
			}
			if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) != (text != "directory") {
				t.Errorf("%s %q: %v", suffix, text, err)
			}
		}
	}
}

// TestPendingOperation: an operation does not start while an interrupted one of its kind is
// pending.
func TestPendingOperation(t *testing.T) {
	s := journal.NewStore(t.TempDir())
	init := testproc.Open(t, testenv.Start(t, nil))
	if err := journal.Covers.Of(s, init, 50).Save(journal.SavedCovers{}); err != nil {
		t.Fatal(err)
	}
	session := NewSession(&container.Container{Init: init}, s, nil)
	if _, err := session.saveCovers(t.Context(), init, &container.Mount{ID: 50}); !errors.Is(err, journal.ErrPending) {
		t.Errorf("%v", err)
	}
}
