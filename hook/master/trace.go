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

// tracer traces a process with ptrace(2). Its methods must be called on the thread that
// seized the process. When that thread or this program ends, the kernel detaches from the
// process (kernel/ptrace.c, exit_ptrace).
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

// seize attaches to a running process and stops it: only a stopped process can be run to
// its next system call.
func seize(ctx context.Context, p *nsenter.Process) (*tracer, error) {
	const options = unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_TRACESYSGOOD
	if err := ptrace(unix.PTRACE_SEIZE, p.PID(), 0, options); err != nil {
		return nil, fmt.Errorf("process %d: attach to it: %w", p.PID(), err)
	}
	t := &tracer{process: p}
	if err := p.Alive(); err != nil {
		return nil, err // another process may have its number
	}
	if err := ptrace(unix.PTRACE_INTERRUPT, p.PID(), 0, 0); err != nil {
		return nil, fmt.Errorf("process %d: stop it: %w", p.PID(), err)
	}
	if _, err := t.wait(ctx); err != nil {
		return nil, err
	}
	return t, nil
}

// wait waits for the next stop and returns its wait4(2) status.
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
			time.Sleep(50 * time.Microsecond) // most stops come sooner
		}
	}
}

// toSystemCall runs the stopped process to the next entry or exit of a system call, and
// delivers signal to it, 0 for none.
func (t *tracer) toSystemCall(signal unix.Signal) error {
	return t.run(unix.PtraceSyscall, signal)
}

// toEvent runs the stopped process to its next signal or exec.
func (t *tracer) toEvent(signal unix.Signal) error {
	return t.run(unix.PtraceCont, signal)
}

func (t *tracer) run(request func(pid, signal int) error, signal unix.Signal) error {
	t.stopped = false
	if err := request(t.process.PID(), int(signal)); err != nil {
		return fmt.Errorf("process %d: continue it: %w", t.process.PID(), os.NewSyscallError("ptrace", err))
	}
	return nil
}

// entry returns the system call that the process has just entered; ok is false if it
// stopped elsewhere.
func (t *tracer) entry() (number uint64, args [6]uint64, ok bool) {
	info, err := t.syscallInfo()
	if err != nil || info.op != unix.PTRACE_SYSCALL_INFO_ENTRY {
		return 0, args, false
	}
	return info.number, info.args, true
}

func (t *tracer) syscallInfo() (syscallInfo, error) {
	var info syscallInfo
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(t.process.PID()),
		unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno != 0 {
		return info, os.NewSyscallError("ptrace", errno)
	}
	return info, nil
}

// result is the error of the system call that the process has just left.
func (t *tracer) result() error {
	info, err := t.syscallInfo()
	switch value := int64(info.number); { // of an exit: the return value
	case err != nil:
		return err
	case info.op != unix.PTRACE_SYSCALL_INFO_EXIT:
		return errors.New("it did not return from its system call")
	case value < 0 && value > -4096:
		return unix.Errno(-value)
	}
	return nil
}

// release detaches from the process, even if ctx has ended.
func (t *tracer) release(ctx context.Context) error {
	if err := t.stop(ctx); err != nil {
		return err // only a stopped process can be detached
	}
	if err := unix.PtraceDetach(t.process.PID()); err != nil {
		return fmt.Errorf("process %d: detach from it: %w", t.process.PID(), os.NewSyscallError("ptrace", err))
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

// signalOf is the signal of a signal-delivery-stop, which must be passed on; 0 for other
// stops.
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
