package ptrace

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// traced calls f on a thread that traces p, and releases p.
func traced(t *testing.T, p *nsenter.Process, f func(*Tracer)) {
	t.Helper()
	testenv.OnThread(func() {
		tr, err := Seize(t.Context(), p)
		if err != nil {
			t.Error(err)
			return
		}
		f(tr)
		if err := tr.Release(t.Context()); err != nil {
			t.Error(err)
		}
	})
	testenv.CheckUntraced(t, p.PID())
}

func TestTracerStopsAndReleases(t *testing.T) {
	testenv.RequireRoot(t)
	p := testproc.Open(t, testenv.Start(t, nil))
	traced(t, p, func(*Tracer) {
		if state := testenv.StatusField(t, p.PID(), "State"); state[0] != 't' {
			t.Errorf("state %q, want a stop by its tracer", state)
		}
	})
}

// TestTracerFollowsSystemCalls looks at a write that cat makes.
func TestTracerFollowsSystemCalls(t *testing.T) {
	testenv.RequireRoot(t)
	c := testenv.Start(t, nil)
	p := testproc.Open(t, c)
	waitInCall(t, p, unix.SYS_READ)
	traced(t, p, func(tr *Tracer) {
		ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
		defer cancel()
		if _, _, entered := tr.Entry(); entered {
			t.Error("the first stop is taken for the entry of a system call")
		}
		if _, err := c.Input.WriteString("twelve bytes"); err != nil {
			t.Error(err)
		}
		for found := false; !found; {
			if err := tr.ToSystemCall(0); err != nil {
				t.Error(err)
				return
			}
			status, err := tr.Wait(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			if IsExec(status) || SignalOf(status) != 0 {
				t.Errorf("stop %#x is taken for something else", status)
			}
			number, args, entered := tr.Entry()
			if found = entered && number == unix.SYS_WRITE; found && (args[0] != 1 || args[2] != 12) {
				t.Errorf("write with arguments %v, want file 1 and 12 bytes", args)
			}
		}
	})
}

// TestTracerReleasesRunning detaches from a process that is not stopped, after the
// time is over.
func TestTracerReleasesRunning(t *testing.T) {
	testenv.RequireRoot(t)
	p := testproc.Open(t, testenv.Start(t, nil))
	traced(t, p, func(tr *Tracer) {
		cause := errors.New("out of time")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, cause)
		defer cancel()
		var err error
		for err == nil {
			if err = tr.ToSystemCall(0); err == nil {
				_, err = tr.Wait(ctx)
			}
		}
		if !errors.Is(err, cause) {
			t.Errorf("error %v, want %v", err, cause)
		}
	})
}

// TestTracerEnds ends the thread that traces: the kernel lets the process go.
func TestTracerEnds(t *testing.T) {
	testenv.RequireRoot(t)
	p := testproc.Open(t, testenv.Start(t, nil))
	testenv.OnThread(func() {
		if _, err := Seize(t.Context(), p); err != nil {
			t.Error(err)
		}
	})
	testenv.Eventually(t, "the process is not traced", func() bool { return testenv.StatusField(t, p.PID(), "TracerPid") == "0" })
	testenv.CheckUntraced(t, p.PID())
}

func TestTracerRefused(t *testing.T) {
	testenv.RequireRoot(t)
	p := testproc.Open(t, testenv.Start(t, nil))
	traced(t, p, func(*Tracer) {
		testenv.OnThread(func() {
			if _, err := Seize(t.Context(), p); !errors.Is(err, unix.EPERM) {
				t.Errorf("a second tracer: %v, want %v", err, unix.EPERM)
			}
		})
	})

	gone := testenv.Start(t, nil)
	process := testproc.Open(t, gone)
	gone.End()
	testenv.OnThread(func() {
		if _, err := Seize(t.Context(), process); !errors.Is(err, unix.ESRCH) {
			t.Errorf("a process that has ended: %v, want %v", err, unix.ESRCH)
		}
	})
}

func TestStops(t *testing.T) {
	const stopped = 0x7f
	tests := []struct {
		name   string
		status unix.WaitStatus
		signal unix.Signal
		exec   bool
	}{
		{"system call", stopped | (unix.WaitStatus(unix.SIGTRAP)|0x80)<<8, 0, false},
		{"exec", stopped | unix.WaitStatus(unix.SIGTRAP)<<8 | unix.PTRACE_EVENT_EXEC<<16, 0, true},
		{"interrupt", stopped | unix.WaitStatus(unix.SIGTRAP)<<8 | unix.PTRACE_EVENT_STOP<<16, 0, false},
		{"group stop", stopped | unix.WaitStatus(unix.SIGSTOP)<<8 | unix.PTRACE_EVENT_STOP<<16, 0, false},
		{"SIGTERM", stopped | unix.WaitStatus(unix.SIGTERM)<<8, unix.SIGTERM, false},
		{"SIGCHLD", stopped | unix.WaitStatus(unix.SIGCHLD)<<8, unix.SIGCHLD, false},
		{"SIGTRAP of its own", stopped | unix.WaitStatus(unix.SIGTRAP)<<8, unix.SIGTRAP, false},
	}
	for _, test := range tests {
		if got := SignalOf(test.status); got != test.signal {
			t.Errorf("%s: signal %v to be passed on, want %v", test.name, got, test.signal)
		}
		if got := IsExec(test.status); got != test.exec {
			t.Errorf("%s: exec %t, want %t", test.name, got, test.exec)
		}
	}
}
