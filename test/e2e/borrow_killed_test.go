package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestKilledWhileDaemonIsBorrowed kills the program while it makes an automount daemon
// open mounts with waiters, when the daemon's registers are the program's. The daemon is
// inside a system call, which ends with another result, and must survive: only it could
// open these mounts. Each of the program's ptrace calls takes 20 ms.
func TestKilledWhileDaemonIsBorrowed(t *testing.T) {
	requireHook(t)
	private := checkpoint(t)
	alone := takeAutomount(t, "automount"+reaper, lab.Options{})
	for name, s := range map[string]*snapshot{"a service": private, "alone": alone} {
		t.Run(name, func(t *testing.T) {
			for calls := range 8 {
				killWhileBorrowed(t, s, time.Duration(calls)*3*20*time.Millisecond)
			}
		})
	}
}

// killWhileBorrowed kills a run some time after it has started to trace the daemon.
func killWhileBorrowed(t *testing.T, s *snapshot, after time.Duration) {
	t.Helper()
	r := restoreStale(t, s)
	daemon := r.Daemon(t)
	released := startAccesses(t, r, automountAccesses())
	log := filepath.Join(lab.Scratch(t, "borrowed"), "strace")
	cmd := exec.Command("strace", "-D", "-f", "-o", log, "-e", "trace=ptrace", "-e", "inject=ptrace:delay_exit=20000",
		lab.Hook(), "repair", strconv.Itoa(r.PID))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the daemon is traced", func() bool { return tracer(t, daemon) != "0" })
	time.Sleep(after)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	time.Sleep(20 * time.Millisecond) // strace detaches from the killed processes
	if _, err := os.Stat("/proc/" + strconv.Itoa(daemon)); err != nil {
		t.Errorf("killed %s after the start: the daemon has ended too: %v", after, err)
	}
	result := lab.RunHook(t, nil, nil, "repair", strconv.Itoa(r.PID))
	t.Logf("killed %s after the start; the next run: exit status %d\n%s", after, result.Status, result.Stderr)
	if result.Status != 0 {
		t.Errorf("exit status %d", result.Status)
	}
	for i, o := range <-released {
		if o.Hung {
			t.Errorf("%s: %s: it still waits", automountAccesses()[i].Path, o)
		}
	}
	r.CheckAnswers(t, lab.DaemonAccesses)
	checkNoWaiters(t, r.Container)
	lab.WaitNoneRunning(t, helperLimit)
	r.Kill(t)
}
