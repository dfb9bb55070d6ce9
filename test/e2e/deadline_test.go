package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// runLimit is a little more than the program's own deadline, 8 s.
const runLimit = 9 * time.Second

// TestHungAtResume makes a dependency of the program hang while it repairs at the end of
// a restore. The restore still works, and the program ends in time; afterwards a repair
// by hand cures the rest.
func TestHungAtResume(t *testing.T) {
	requireHook(t)
	s := checkpoint(t)
	group := "/sys/fs/cgroup/" + s.ContainerID() + "/init.scope/cgroup.freeze"
	for name, test := range map[string]struct {
		hang, free string // shell commands, before the program and after it
	}{
		"PID 1 is stopped":   {"kill -STOP $CRTOOLS_INIT_PID", "kill -CONT $CRTOOLS_INIT_PID"},
		"systemd is frozen":  {"echo 1 >" + group, "echo 0 >" + group},
		"CRIU hangs":         {"kill -STOP $PPID", ""},
		"automount is stuck": {"kill -STOP $(pgrep -x automount)", "kill -CONT $(pgrep -x automount)"},
	} {
		t.Run(name, func(t *testing.T) {
			freed := filepath.Join(t.TempDir(), "freed")
			// The subshell lets CRIU continue when the program has ended, which is a
			// zombie then.
			shell := fmt.Sprintf(`if [ "$CRTOOLS_SCRIPT_ACTION" = post-resume ]; then
	(
		n=0
		until [ ! -e /proc/$$ ] || grep -q '^State:.*zombie' /proc/$$/status || [ $n -gt 150 ]; do n=$((n+1)); sleep 0.1; done
		%s
		kill -CONT $PPID
		touch %s
	) >/dev/null 2>&1 &
	%s
fi
`, test.free, freed, test.hang)
			lab.InstallWrappedScript(t, lab.Hook(), shell)
			r := s.Restore(t, lab.RestoreOptions{})
			t.Logf("restored in %s", r.Took)
			if r.Took > runLimit+time.Second {
				t.Errorf("the restore took %s", r.Took)
			}
			waitUntil(t, "the subshell has undone it", func() bool { return exists(freed) })
			r.CheckUntouched(t)
			repairByHand(t, r)
			r.CheckAnswers(t, lab.Accesses)
			checkNoWaiters(t, r.Container)
			checkUncovered(t, r.Container)
			lab.WaitNoneRunning(t, helperLimit)
		})
	}
}

// TestHungInLateRepair stops systemd during a repair by hand: with a tracer, or frozen.
// In TestStoppedInit it is stopped by a signal.
func TestHungInLateRepair(t *testing.T) {
	requireHook(t)
	s := checkpoint(t)
	t.Run("traced", func(t *testing.T) {
		r := restoreStale(t, s)
		release := stopByTracing(t, r.PID)
		repairLate(t, r, "reexec")
		release()
		finishLate(t, r)
	})
	t.Run("frozen", func(t *testing.T) {
		r := restoreStale(t, s)
		group := "/sys/fs/cgroup/" + r.ID + "/init.scope/cgroup.freeze"
		write := func(text string) {
			if err := os.WriteFile(group, []byte(text), 0); err != nil {
				t.Fatal(err)
			}
		}
		write("1")
		repairLate(t, r, "restart")
		write("0")
		finishLate(t, r)
	})
}

// repairLate runs a repair that cannot cure everything. RunHook checks that it ends.
func repairLate(t *testing.T, r *lab.Restored, strategy string) {
	t.Helper()
	result := lab.RunHook(t, nil, nil, "repair", strconv.Itoa(r.PID), "--json", "--strategy", strategy)
	t.Logf("exit status %d after %s", result.Status, result.Took.Round(time.Millisecond))
	if result.Status == 0 || result.Took > runLimit {
		t.Errorf("exit status %d after %s, although systemd does not run\n%s", result.Status, result.Took, result.Stderr)
	}
}

func finishLate(t *testing.T, r *lab.Restored) {
	t.Helper()
	repairByHand(t, r)
	if t.Failed() {
		for _, name := range []string{"wchan", "syscall", "status"} {
			text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", r.PID, name))
			t.Logf("systemd: %s: %.400s", name, text)
		}
		t.Logf("systemctl: %s", r.Try(t, lab.TouchLimit, "systemctl", "is-system-running"))
	}
	r.CheckUntouched(t)
	r.CheckAnswers(t, lab.Accesses)
	checkNoWaiters(t, r.Container)
	lab.WaitNoneRunning(t, helperLimit)
}

// stopByTracing stops a process as a debugger does, until release is called.
func stopByTracing(t *testing.T, pid int) (release func()) {
	t.Helper()
	stopped, end, ended := make(chan error), make(chan bool), make(chan error)
	go func() {
		runtime.LockOSThread() // a tracer is a thread; it ends with this goroutine
		if err := unix.PtraceSeize(pid); err != nil {
			stopped <- err
			return
		}
		err := unix.PtraceInterrupt(pid)
		if err == nil {
			_, err = syscall.Wait4(pid, nil, unix.WALL, nil)
		}
		stopped <- err
		<-end
		ended <- unix.PtraceDetach(pid)
	}()
	if err := <-stopped; err != nil {
		t.Fatalf("trace process %d: %v", pid, err)
	}
	return func() {
		t.Helper()
		close(end)
		if err := <-ended; err != nil {
			t.Errorf("detach from process %d: %v", pid, err)
		}
	}
}
