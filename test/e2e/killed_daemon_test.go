package e2e

import (
	"path/filepath"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestKilledBetweenDaemons kills the program when it has ended an automount and
// not started the next one. The next run finishes the work.
func TestKilledBetweenDaemons(t *testing.T) {
	requireHook(t)
	s := checkpoint(t)
	id := filepath.Base(filepath.Dir(s.Images))
	log := filepath.Join(lab.Scratch(t, id+"-killed"), "daemon")
	lab.InstallWrappedScript(t, lab.Hook(), killerScript("post-resume", id, `! read -r pid <autofs.service/cgroup.procs`, log))
	r := s.Restore(t, lab.RestoreOptions{})
	t.Logf("thawed %s after the kill", thawedAfter(t, log))
	finishRepair(t, s, r)
}
