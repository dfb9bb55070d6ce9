package ptrace

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
)

// TestHostileStack: the stack pointer of the process leads nowhere.
func TestHostileStack(t *testing.T) {
	testenv.RequireRoot(t)
	for _, pointer := range []uint64{0, 0x1000, 1 << 46, ^uint64(0) &^ 7, 1 << 63} {
		p := testproc.Open(t, testenv.Start(t, nil))
		testenv.Eventually(t, "the process waits in a system call", func() bool {
			call, err := p.ReadFile("syscall", 1<<10)
			return err == nil && !strings.HasPrefix(string(call), "running")
		})
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
	p := testproc.Open(t, testenv.StartCommand(t, nil, "sh", "-c", "while :; do :; done"))
	testenv.Eventually(t, "the process computes", func() bool {
		stat, err := p.ReadFile("stat", 1<<12)
		fields := strings.Fields(string(stat))
		return err == nil && len(fields) > 13 && fields[13] > "1" // utime in ticks, of a name without blanks (proc_pid_stat(5))
	})
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
