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
)

// TestReplacingRecord: what cannot be understood is said once, and is gone.
func TestReplacingRecord(t *testing.T) {
	dir := t.TempDir()
	init := open(t, testenv.Start(t, nil))
	session := NewSession(&container.Container{Init: init}, journal.NewStore(dir), nil)
	entry := filepath.Join(dir, "containers", init.Identity()+".replacing")
	if undone, err := session.undoReplacement(context.Background(), nil); undone || err != nil {
		t.Errorf("no entry: %v, %v", undone, err)
	}
	for name, text := range map[string]string{"newer": `{"version":2,"places":[]}`, "none": `{}`, "cut": `{"version":1,"pla`, "empty": ""} {
		testenv.WriteFile(t, entry, text)
		if undone, err := session.undoReplacement(context.Background(), nil); undone || err == nil || !strings.Contains(err.Error(), "not of this version") {
			t.Errorf("%s: %v, %v", name, undone, err)
		}
		if _, err := os.Lstat(entry); !os.IsNotExist(err) {
			t.Errorf("%s: the entry is still there (%v)", name, err)
		}
	}
	// A mount namespace that has ended took its mounts with it.
	text := `{"version":1,"places":[{"namespace":1,"path":"/a","old":54,"new":55,"parent":7,"kind":262144,"apart":true}]}`
	testenv.WriteFile(t, entry, text)
	if undone, err := session.undoReplacement(context.Background(), nil); undone || err != nil {
		t.Errorf("of a namespace that ended: %v, %v", undone, err)
	}
	if _, err := os.Lstat(entry); !os.IsNotExist(err) {
		t.Errorf("the entry is still there (%v)", err)
	}
}

// TestReplaceUnfinished: while the intent of an earlier run stands nothing is
// replaced, and in some of the namespaces nothing undone.
func TestReplaceUnfinished(t *testing.T) {
	s := journal.NewStore(t.TempDir())
	init := open(t, testenv.Start(t, nil))
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
