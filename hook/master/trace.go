package master

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// tracer holds a process with ptrace. All its methods must be called on the
// thread that seized it. When that thread or this program ends, the kernel lets
// the process run on (kernel/ptrace.c, exit_ptrace).
type tracer struct {
	process *nsenter.Process
	stopped bool
}

// syscallInfo is struct ptrace_syscall_info (include/uapi/linux/ptrace.h, Linux
// 5.3), the same on all architectures, up to the arguments of an entry.
type syscallInfo struct {
	op     uint8
	_      [3]uint8
	arch   uint32
	ip, sp uint64
	number uint64
	args   [6]uint64
}

// seize begins to trace a running process, and stops it: without a stop the
// stops at system calls that follow would not come.
func seize(ctx context.Context, p *nsenter.Process) (*tracer, error) {
	const options = unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_TRACESYSGOOD
	if err := ptrace(unix.PTRACE_SEIZE, p.PID(), 0, options); err != nil {
		return nil, fmt.Errorf("process %d: trace it: %w", p.PID(), err)
	}
	t := &tracer{process: p}
	if err := p.Alive(); err != nil {
		return nil, err // its number may belong to another process by now
	}
	if err := ptrace(unix.PTRACE_INTERRUPT, p.PID(), 0, 0); err != nil {
		return nil, fmt.Errorf("process %d: stop it: %w", p.PID(), err)
	}
	if _, err := t.wait(ctx); err != nil {
		return nil, err
	}
	return t, nil
}

// wait waits for the next stop and returns the status word of wait4(2).
func (t *tracer) wait(ctx context.Context) (unix.WaitStatus, error) {
	begin := time.Now()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(t.process.PID(), &status, unix.WNOHANG|unix.WALL, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, fmt.Errorf("process %d: wait for its next stop: %w", t.process.PID(), os.NewSyscallError("wait4", err))
		case pid != 0 && status.Stopped():
			t.stopped = true
			return status, nil
		case pid != 0:
			return 0, fmt.Errorf("process %d: it ended while it was traced", t.process.PID())
		case ctx.Err() != nil:
			return 0, fmt.Errorf("process %d: wait for its next stop: %w", t.process.PID(), context.Cause(ctx))
		}
		if time.Since(begin) > 200*time.Microsecond {
			time.Sleep(50 * time.Microsecond) // most stops follow each other faster
		}
	}
}

// toSystemCall lets the stopped process run to the next entry or exit of a
// system call. signal is delivered to it, 0 for none.
func (t *tracer) toSystemCall(signal unix.Signal) error {
	return t.run(unix.PtraceSyscall, signal)
}

// toEvent lets the stopped process run to its next signal or exec.
func (t *tracer) toEvent(signal unix.Signal) error {
	return t.run(unix.PtraceCont, signal)
}

func (t *tracer) run(request func(pid, signal int) error, signal unix.Signal) error {
	t.stopped = false
	if err := request(t.process.PID(), int(signal)); err != nil {
		return fmt.Errorf("process %d: let it run on: %w", t.process.PID(), os.NewSyscallError("ptrace", err))
	}
	return nil
}

// entry returns the system call that the process has just entered; ok is false
// if it is stopped anywhere else.
func (t *tracer) entry() (number uint64, args [6]uint64, ok bool) {
	var info syscallInfo
	n, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(t.process.PID()),
		unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno != 0 || n == 0 || info.op != unix.PTRACE_SYSCALL_INFO_ENTRY {
		return 0, args, false
	}
	return info.number, info.args, true
}

// result is the error of the system call that the process has just left, nil for
// none.
func (t *tracer) result() error {
	var info syscallInfo
	n, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(t.process.PID()),
		unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	switch value := int64(info.number); { // of an exit: the return value
	case errno != 0:
		return os.NewSyscallError("ptrace", errno)
	case n == 0 || info.op != unix.PTRACE_SYSCALL_INFO_EXIT:
		return errors.New("it did not return from its system call")
	case value < 0 && value > -4096:
		return unix.Errno(-value)
	}
	return nil
}

// release lets the process run on untraced, even if ctx has ended.
func (t *tracer) release(ctx context.Context) error {
	if err := t.stop(ctx); err != nil {
		return err // only a stopped process can be detached
	}
	if err := unix.PtraceDetach(t.process.PID()); err != nil {
		return fmt.Errorf("process %d: let it go: %w", t.process.PID(), os.NewSyscallError("ptrace", err))
	}
	return nil
}

// stop stops the process, if it runs, even if ctx has ended.
func (t *tracer) stop(ctx context.Context) error {
	if t.stopped {
		return nil
	}
	if err := ptrace(unix.PTRACE_INTERRUPT, t.process.PID(), 0, 0); err != nil {
		return fmt.Errorf("process %d: stop it: %w", t.process.PID(), err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_, err := t.wait(ctx)
	return err
}

func ptrace(request, pid int, address, data uintptr) error {
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(pid), address, data, 0, 0); errno != 0 {
		return os.NewSyscallError("ptrace", errno)
	}
	return nil
}

// signalOf is the signal that a stop is about and that must be passed on; 0 for
// the stops of ptrace itself.
func signalOf(status unix.WaitStatus) unix.Signal {
	const systemCall = unix.SIGTRAP | 0x80 // PTRACE_O_TRACESYSGOOD
	if status>>16 != 0 || status.StopSignal() == systemCall {
		return 0
	}
	return status.StopSignal()
}

func isExec(status unix.WaitStatus) bool {
	return status>>8 == unix.WaitStatus(unix.SIGTRAP)|unix.PTRACE_EVENT_EXEC<<8
}
