package hook

import (
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/stage"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
)

// TestCurrentHandover: what counts is the handover that an earlier stage has saved while
// Repair waited for the lock.
func TestCurrentHandover(t *testing.T) {
	r := Runner{Directory: t.TempDir(), Warn: func(err error) { t.Error(err) }}
	criu, init := testproc.Open(t, testenv.Start(t, nil)), testproc.Open(t, testenv.Start(t, nil))
	for name, test := range map[string]struct {
		saved         journal.Handover
		current, done bool
	}{
		"Reserve":           {journal.Handover{Stage: stage.Reserve}, true, false},
		"Preserve":          {journal.Handover{Stage: stage.Preserve, Init: init.Identity(), Preserved: []string{"/a"}}, true, false},
		"Repair":            {journal.Handover{Stage: stage.Repair, Init: init.Identity()}, true, true},
		"another container": {journal.Handover{Stage: stage.Preserve, Init: criu.Identity()}, false, false},
	} {
		if err := r.journal().SaveHandover(criu, &test.saved); err != nil {
			t.Fatal(err)
		}
		got, done := r.currentHandover(criu, init, &journal.Handover{Stage: stage.Reserve})
		if (got != nil) != test.current || done != test.done || got != nil && (got.Stage != test.saved.Stage || len(got.Preserved) != len(test.saved.Preserved)) {
			t.Errorf("%s: %+v, %t", name, got, done)
		}
	}
}
