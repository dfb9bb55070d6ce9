package e2e

import (
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestNewerSystemd restores containers whose systemd also watches memory pressure. CRIU
// restores that watch without its trigger, and then such a systemd loops for ever.
func TestNewerSystemd(t *testing.T) {
	for _, suite := range []string{"trixie", "sid"} {
		t.Run(suite, func(t *testing.T) {
			s := sharedCheckpoint(t, lab.Options{Systemd: suite, MountRateLimit: true})
			r := restoreWithHook(t, s, lab.RestoreOptions{})
			checkPreserved(t, r)
			r.CheckAnswers(t, lab.Accesses)
			checkNoWaiters(t, r.Container)
			checkUncovered(t, r.Container)
		})
	}
}
