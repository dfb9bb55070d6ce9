package ptrace

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// TestHostileStack: the stack pointer of the process leads nowhere.
func TestHostileStack(t *testing.T) {
	testenv.RequireRoot(t)
	for _, pointer := range []uint64{0, 0x1000, 1 << 46, ^uint64(0) &^ 7, 1 << 63} {
		p := testproc.Open(t, testenv.Start(t, nil))
		waitInAnyCall(t, p)
		testenv.OnThread(func() {
			tr, err := Seize(t.Context(), p)
			if err != nil {
				t.Error(err)
				return
			}
			b := &Injector{tracer: tr}
			var registers unix.PtraceRegs
			err = b.transfer(unix.PTRACE_GETREGSET, &registers)
			setStack(&registers, pointer)
			if err := errors.Join(err, b.transfer(unix.PTRACE_SETREGSET, &registers), tr.Release(t.Context())); err != nil {
				t.Error(err)
			}
			in, err := Inject(t.Context(), p)
			if err != nil {
				t.Logf("%#x: %v", pointer, err)
				return
			}
			if address, err := in.Push([]byte("argument")); err == nil {
				t.Errorf("%#x: written at %#x", pointer, address)
			}
			if err := in.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
		testenv.CheckUntraced(t, p.PID())
	}
}

// TestHostileNoCall: a process that is not in a system call is left alone.
func TestHostileNoCall(t *testing.T) {
	testenv.RequireRoot(t)
	marker := filepath.Join(t.TempDir(), "started")
	p := testproc.Open(t, testenv.StartCommand(t, nil, "sh", "-c", `: >"$0"; while :; do :; done`, marker))
	userTime := func() (ticks int) {
		stat, err := p.ReadFile("stat", 1<<12)
		fields := strings.Fields(string(stat))
		if err == nil && len(fields) > 13 {
			ticks, _ = strconv.Atoi(fields[13]) // of a name without blanks (proc_pid_stat(5))
		}
		return ticks
	}
	testenv.Eventually(t, "the process has started", func() bool { _, err := os.Stat(marker); return err == nil })
	start := userTime()
	testenv.Eventually(t, "the process computes", func() bool { return userTime() > start+1 })
	testenv.OnThread(func() {
		in, err := Inject(t.Context(), p)
		if err == nil {
			err = errors.Join(in.Close(t.Context()), errors.New("injected"))
		}
		if !strings.Contains(err.Error(), "system call") {
			t.Error(err)
		}
	})
	testenv.CheckUntraced(t, p.PID())
}

// TestInject makes calls in the place of processes that wait in system calls which the
// kernel restarts in different ways, and checks that they wait on undisturbed.
func TestInject(t *testing.T) {
	testenv.RequireRoot(t)
	for name, test := range map[string]struct {
		args []string
		call uint64
		end  time.Duration // when it ends by itself, 0 if it reads to the end
	}{
		"read (ERESTARTSYS)":                      {[]string{"cat"}, unix.SYS_READ, 0},
		"clock_nanosleep (ERESTART_RESTARTBLOCK)": {[]string{"sleep", "3"}, unix.SYS_CLOCK_NANOSLEEP, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			c := testenv.StartCommand(t, nil, test.args...)
			p := testproc.Open(t, c)
			waitInCall(t, p, test.call)
			time.Sleep(test.end * 2 / 3) // from the beginning it would sleep too long
			testenv.OnThread(func() {
				in, err := Inject(t.Context(), p)
				if err != nil {
					t.Error(err)
					return
				}
				for range 3 {
					if err := in.Call(t.Context(), unix.SYS_GETPPID, [3]uint64{}); err != nil {
						t.Error(err)
					}
				}
				if err := in.Call(t.Context(), unix.SYS_CLOSE, [3]uint64{1 << 20}); !errors.Is(err, unix.EBADF) {
					t.Errorf("close of no file: %v", err)
				}
				if err := in.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
			testenv.CheckUntraced(t, p.PID())
			if test.end == 0 {
				c.Input.Close()
			}
			err := c.Cmd.Wait()
			if took := time.Since(begin); err != nil || took < test.end || test.end > 0 && took > test.end+time.Second {
				t.Errorf("it ended after %v: %v", took, err)
			}
		})
	}
}

// TestInjectAgain injects into a process that had no time to continue its system call
// since the last injection.
func TestInjectAgain(t *testing.T) {
	testenv.RequireRoot(t)
	for _, test := range []struct {
		args []string
		call uint64
	}{{[]string{"cat"}, unix.SYS_READ}, {[]string{"sleep", "1000"}, unix.SYS_CLOCK_NANOSLEEP}} {
		p := testproc.Open(t, testenv.StartCommand(t, nil, test.args...))
		waitInCall(t, p, test.call)
		testenv.OnThread(func() {
			var one unix.CPUSet
			one.Set(0)
			if err := errors.Join(unix.SchedSetaffinity(p.PID(), &one), unix.SchedSetaffinity(0, &one)); err != nil {
				t.Error(err)
				return
			}
			for range 100 {
				in, err := Inject(t.Context(), p)
				if err == nil {
					err = errors.Join(in.Call(t.Context(), unix.SYS_GETPPID, [3]uint64{}), in.Close(t.Context()))
				}
				if err != nil {
					t.Errorf("%s: %v", test.args[0], err)
					return
				}
			}
		})
		testenv.CheckUntraced(t, p.PID())
		waitInAnyCall(t, p)
	}
}

// waitInAnyCall waits until a process is in a system call.
func waitInAnyCall(t *testing.T, p *nsenter.Process) {
	t.Helper()
	testenv.Eventually(t, "it waits in a system call", func() bool {
		text, err := p.ReadFile("syscall", 1<<10)
		return err == nil && !strings.HasPrefix(string(text), "running")
	})
}

// waitInCall waits until a process is in a system call whose first argument is 0: standard
// input, not a file that the loader reads.
func waitInCall(t *testing.T, p *nsenter.Process, number uint64) {
	t.Helper()
	prefix := strconv.FormatUint(number, 10) + " 0x0 "
	testenv.Eventually(t, "it waits in system call "+prefix, func() bool {
		text, err := p.ReadFile("syscall", 1<<10)
		return err == nil && strings.HasPrefix(string(text), prefix)
	})
}
