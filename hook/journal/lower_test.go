package journal

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/helper/fdstore"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
)

// TestOthersKeepLower: a restore that keeps lower numbers, or whose handover is damaged,
// makes another one not take a number for that of another file system.
func TestOthersKeepLower(t *testing.T) {
	s := NewStore(t.TempDir())
	child := testenv.Start(t, nil)
	keeper, other := testproc.Open(t, child), testproc.Open(t, testenv.Start(t, nil))
	check := func(what string, want bool) {
		t.Helper()
		if s.OthersKeepLower(other) != want {
			t.Errorf("%s: %v", what, !want)
		}
		if s.OthersKeepLower(keeper) {
			t.Errorf("%s: its own numbers", what)
		}
	}
	save := func(h Handover) {
		t.Helper()
		if err := s.SaveHandover(keeper, &h); err != nil {
			t.Fatal(err)
		}
	}
	check("no restore", false)
	save(Handover{Lower: fdstore.Ref{PID: 1}})
	check("it keeps some", true)
	save(Handover{})
	check("it keeps none", false)
	if err := os.WriteFile(filepath.Join(s.dir, restoresFolder, keeper.Identity()+handovers.suffix), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	check("a damaged handover", true)
	child.End()
	testenv.Eventually(t, "it has ended", keeper.Ended)
	check("it has ended", false)
}
