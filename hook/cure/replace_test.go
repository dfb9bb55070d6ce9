package cure

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
)

// TestUndoReplacementEntries: an entry that cannot be decoded is reported and removed.
func TestUndoReplacementEntries(t *testing.T) {
	dir := t.TempDir()
	init := testproc.Open(t, testenv.Start(t, nil))
	session := NewSession(&container.Container{Init: init}, journal.NewStore(dir), nil)
	entry := filepath.Join(dir, "containers", init.Identity()+".replacing")
	if undone, err := session.undoReplacement(context.Background(), nil); undone || err != nil {
		t.Errorf("no entry: %v, %v", undone, err)
	}
	for form, text := range map[string]string{"newer": `{"version":2,"places":[]}`, "none": `{}`, "cut": `{"version":1,"pla`, "empty": ""} {
		testenv.WriteFile(t, entry, text)
		if undone, err := session.undoReplacement(context.Background(), nil); undone || err == nil || !strings.Contains(err.Error(), "not of this version") {
			t.Errorf("%s: %v, %v", form, undone, err)
		}
		if _, err := os.Lstat(entry); !os.IsNotExist(err) {
			t.Errorf("%s: the entry still exists (%v)", form, err)
		}
	}
	// The mounts of a mount namespace end with it.
	text := `{"version":1,"places":[{"namespace":1,"path":"/a","old":54,"new":55,"parent":7,"kind":262144,"apart":true}]}`
	testenv.WriteFile(t, entry, text)
	if undone, err := session.undoReplacement(context.Background(), nil); undone || err != nil {
		t.Errorf("of a namespace that ended: %v, %v", undone, err)
	}
	if _, err := os.Lstat(entry); !os.IsNotExist(err) {
		t.Errorf("the entry still exists (%v)", err)
	}
}

// TestReplacePending: while there is an intent of an earlier run, replace does nothing and
// keeps the intent.
func TestReplacePending(t *testing.T) {
	s := journal.NewStore(t.TempDir())
	init := testproc.Open(t, testenv.Start(t, nil))
	intent := journal.Replacements.Of(s, init)
	if err := intent.Save(journal.Replacement{Places: []mounts.Place{{Namespace: 1, Path: "/a"}}}); err != nil {
		t.Fatal(err)
	}
	if err := NewSession(&container.Container{Init: init}, s, nil).replace(t.Context(), nil, nil); !errors.Is(err, journal.ErrPending) {
		t.Errorf("%v", err)
	}
	if !intent.Exists() {
		t.Error("the intent is gone")
	}
}
