package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Killer traces one run of the program, and kills it when it is about to make the n-th
// system call with a side effect, counted over all its threads. It neither traces nor
// kills processes that the program starts. With NewTimedKiller it does not trace, and
// kills after a time.
type Killer struct {
	dir   string
	n     int
	after time.Duration
	ended chan struct{}
	calls []string
	// killed is whether there was an n-th call; err is the error of tracing.
	killed bool
	peak   int // VmHWM, in KiB
	err    error
}

// killLimit is the time limit of a traced run, which takes several times as long as
// another.
const killLimit = 30 * time.Second

// NewTimedKiller prepares to kill a run after a time.
func NewTimedKiller(t testing.TB, after time.Duration) *Killer {
	t.Helper()
	return newKiller(t, &Killer{after: after})
}

// NewKiller prepares to kill at the n-th call; 0 only counts. The run must execute the
// text of [Killer.Shell] and then the program.
func NewKiller(t testing.TB, n int) *Killer {
	t.Helper()
	return newKiller(t, &Killer{n: n})
}

func newKiller(t testing.TB, k *Killer) *Killer {
	t.Helper()
	dir, err := os.MkdirTemp(Scratch(t, "killer"), "run")
	if err != nil {
		t.Fatal(err)
	}
	k.dir, k.ended = dir, make(chan struct{})
	for _, name := range []string{"pid", "go"} {
		if err := unix.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pid, err := os.OpenFile(filepath.Join(dir, "pid"), os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	proceed, err := os.OpenFile(filepath.Join(dir, "go"), os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		runtime.LockOSThread() // a tracer is a thread; it ends with this goroutine
		defer close(k.ended)
		defer pid.Close()
		defer proceed.Close()
		k.err = k.run(pid, proceed)
	}()
	return k
}

// Shell returns a part of a shell script: the program that the script executes next is
// traced.
func (k *Killer) Shell() string {
	return fmt.Sprintf("echo $$ >%s/pid; read -r go <%s/go\n", k.dir, k.dir)
}

// Wait returns the names of the calls up to the one at which the program was killed, and
// whether it was killed.
func (k *Killer) Wait(t testing.TB) (calls []string, killed bool) {
	t.Helper()
	select {
	case <-k.ended:
	case <-time.After(2 * killLimit):
		t.Fatal("the traced run does not end")
	}
	if k.err != nil {
		t.Fatalf("tracing the program: %v", k.err)
	}
	return k.calls, k.killed
}

// Peak returns the peak resident memory of the run, in KiB. The run was traced to its
// end.
func (k *Killer) Peak(t testing.TB) int {
	t.Helper()
	if _, killed := k.Wait(t); killed || k.peak == 0 {
		t.Fatalf("the memory of the traced run is not known (killed: %v)", killed)
	}
	return k.peak
}

func (k *Killer) run(pid, proceed *os.File) error {
	_ = pid.SetReadDeadline(time.Now().Add(killLimit))
	buf := make([]byte, 64)
	n, err := pid.Read(buf)
	if err != nil {
		return fmt.Errorf("the run did not begin: %w", err)
	}
	shell, err := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	if err != nil {
		return err
	}
	if k.after > 0 {
		return k.killLater(shell, proceed)
	}
	if err := seize(shell); err != nil {
		return err
	}
	if _, err := proceed.WriteString("go\n"); err != nil {
		return err
	}
	timer := time.AfterFunc(killLimit, func() { _ = unix.Kill(shell, unix.SIGKILL) })
	defer timer.Stop()
	return k.trace(shell)
}

// killLater kills the program some time after it was executed.
func (k *Killer) killLater(shell int, proceed *os.File) error {
	fd, err := unix.PidfdOpen(shell, 0)
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(fd)
	if _, err := proceed.WriteString("go\n"); err != nil {
		return err
	}
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(50 * time.Microsecond) {
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", shell)); err != nil || exe == Hook() {
			break
		}
	}
	time.Sleep(k.after)
	k.killed = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil
	return nil
}

// seize starts to trace a process, its new threads and the program that it executes.
func seize(pid int) error {
	options := unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_TRACEEXIT
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, uintptr(options), 0, 0)
	if errno != 0 {
		return os.NewSyscallError("ptrace", errno)
	}
	if err := unix.PtraceInterrupt(pid); err != nil {
		return os.NewSyscallError("ptrace", err)
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, unix.WALL|unix.WNOTHREAD, nil); err != nil {
		return os.NewSyscallError("wait4", err)
	}
	return os.NewSyscallError("ptrace", unix.PtraceSyscall(pid, 0))
}

// trace follows all threads until the last one has ended. The thread of the tracer may
// have started children of the tests before; waiting also reports these, and they may
// still run.
func (k *Killer) trace(leader int) error {
	executed := false
	for {
		var ws unix.WaitStatus
		tid, err := unix.Wait4(-1, &ws, unix.WALL|unix.WNOTHREAD, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ECHILD):
			return nil
		case err != nil:
			return os.NewSyscallError("wait4", err)
		case !ws.Stopped() && tid == leader: // it is waited for when all others have ended
			return nil
		case !ws.Stopped():
			continue
		}
		deliver := 0
		switch signal := ws.StopSignal(); {
		case signal == unix.SIGTRAP|0x80: // entry to or exit from a system call
			if executed && !k.killed {
				k.look(tid, leader)
			}
		case int(ws)>>16 == unix.PTRACE_EVENT_EXEC:
			exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", leader))
			// The program may execute a copy of itself, which has another name.
			executed = executed || err == nil && exe == Hook()
		case int(ws)>>16 == unix.PTRACE_EVENT_EXIT:
			if fields, err := status(tid); executed && err == nil {
				k.peak = max(k.peak, kibibytes(fields["VmHWM"]))
			}
		case int(ws)>>16 != 0: // another event, or a new thread
		default:
			deliver = int(signal)
		}
		_ = unix.PtraceSyscall(tid, deliver) // ESRCH: it was killed
	}
}

// look counts a call with a side effect at its entry, and kills at the n-th.
func (k *Killer) look(tid, leader int) {
	var info syscallInfo
	n, err := info.read(tid)
	if err != nil || n == 0 || info.Op != unix.PTRACE_SYSCALL_INFO_ENTRY {
		return
	}
	name := changing(tid, info.Number, info.Args)
	if name == "" {
		return
	}
	k.calls = append(k.calls, name)
	if len(k.calls) == k.n {
		k.killed = true
		_ = unix.Kill(leader, unix.SIGKILL) // the call is not made: ptrace(2)
	}
}

// kibibytes reads a field of /proc/<pid>/status: "1234 kB".
func kibibytes(field string) int {
	n, _ := strconv.Atoi(strings.TrimSuffix(field, " kB"))
	return n
}
