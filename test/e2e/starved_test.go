package e2e

import (
	"os"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestNoProcessLeft restores a container with CRIU in a control group that allows one
// more process, for the action script, once all processes of the container exist: runc
// runs CRIU in the group of the container, which may be that full.
func TestNoProcessLeft(t *testing.T) {
	requireHook(t)
	s := checkpoint(t)
	lab.InstallActionScript(t, "")
	mustRun(t, "install")
	t.Cleanup(func() { mustRun(t, "uninstall") })
	const folder = "/sys/fs/cgroup/pids" // mount point of version 1, if there is one
	if err := os.Mkdir(folder, 0o755); err == nil {
		t.Cleanup(func() { _ = os.Remove(folder) })
	}
	group := limitedGroup(t, "pids", map[bool]string{true: "pids.max", false: "pids.max"}, 2, folder)
	shell := `if [ "$CRTOOLS_SCRIPT_ACTION" = post-restore ]; then
	echo "$PPID" >'` + group + `/cgroup.procs' && echo $$ >'` + group + `/cgroup.procs' || exit
fi
`
	lab.InstallWrappedScript(t, installed, shell)
	if r, err := s.TryRestore(t, lab.RestoreOptions{}); err == nil {
		t.Error("the program needs one process only, so the test proves nothing about the script")
		r.Kill(t)
	} else {
		t.Logf("without the script: %v", err)
		s.KillRemains(t)
	}

	lab.InstallWrappedScript(t, installed+"-action-script", shell)
	r := s.Restore(t, lab.RestoreOptions{})
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(hookLines(r.Log))
		}
	})
	checkReport(t, r.ReadReport(t), r)
	r.CheckAnswers(t, lab.Accesses)
	checkNoWaiters(t, r.Container)
	checkUncovered(t, r.Container)
	lab.WaitNoneRunning(t, helperLimit)
	r.Kill(t)
}
