package ptrace

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

// Tracer traces a process with ptrace(2). Its methods must be called on the thread that
// seized the process. When that thread or this program ends, the kernel detaches from the
// process (kernel/ptrace.c, exit_ptrace).
type Tracer struct {
	Process *nsenter.Process
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

// Seize attaches to a running process and stops it: only a stopped process can be run to
// its next system call.
func Seize(ctx context.Context, p *nsenter.Process) (*Tracer, error) {
	const options = unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_TRACESYSGOOD
	if err := ptrace(unix.PTRACE_SEIZE, p.PID(), 0, options); err != nil {
		return nil, fmt.Errorf("process %d: attach to it: %w", p.PID(), err)
	}
	t := &Tracer{Process: p}
	if err := p.Alive(); err != nil {
		return nil, err // another process may have its number
	}
	if err := ptrace(unix.PTRACE_INTERRUPT, p.PID(), 0, 0); err != nil {
		return nil, fmt.Errorf("process %d: stop it: %w", p.PID(), err)
	}
	if _, err := t.Wait(ctx); err != nil {
		return nil, err
	}
	return t, nil
}

// Wait waits for the next stop and returns its wait4(2) status.
func (t *Tracer) Wait(ctx context.Context) (unix.WaitStatus, error) {
	begin := time.Now()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(t.Process.PID(), &status, unix.WNOHANG|unix.WALL, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, fmt.Errorf("process %d: wait for its next stop: %w", t.Process.PID(), os.NewSyscallError("wait4", err))
		case pid != 0 && status.Stopped():
			t.stopped = true
			return status, nil
		case pid != 0:
			return 0, fmt.Errorf("process %d: it ended while it was traced", t.Process.PID())
		case ctx.Err() != nil:
			return 0, fmt.Errorf("process %d: wait for its next stop: %w", t.Process.PID(), context.Cause(ctx))
		}
		if time.Since(begin) > 200*time.Microsecond {
			time.Sleep(50 * time.Microsecond) // most stops come sooner
		}
	}
}

// ToSystemCall runs the stopped process to the next entry or exit of a system call, and
// delivers signal to it, 0 for none.
func (t *Tracer) ToSystemCall(signal unix.Signal) error {
	return t.run(unix.PtraceSyscall, signal)
}

// ToEvent runs the stopped process to its next signal or exec.
func (t *Tracer) ToEvent(signal unix.Signal) error {
	return t.run(unix.PtraceCont, signal)
}

func (t *Tracer) run(request func(pid, signal int) error, signal unix.Signal) error {
	t.stopped = false
	if err := request(t.Process.PID(), int(signal)); err != nil {
		return fmt.Errorf("process %d: continue it: %w", t.Process.PID(), os.NewSyscallError("ptrace", err))
	}
	return nil
}

// Entry returns the system call that the process has just entered; ok is false if it
// stopped elsewhere.
func (t *Tracer) Entry() (number uint64, args [6]uint64, ok bool) {
	info, err := t.syscallInfo()
	if err != nil || info.op != unix.PTRACE_SYSCALL_INFO_ENTRY {
		return 0, args, false
	}
	return info.number, info.args, true
}

func (t *Tracer) syscallInfo() (syscallInfo, error) {
	var info syscallInfo
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(t.Process.PID()),
		unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno != 0 {
		return info, os.NewSyscallError("ptrace", errno)
	}
	return info, nil
}

// result is the error of the system call that the process has just left.
func (t *Tracer) result() error {
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

// Release detaches from the process, even if ctx has ended.
func (t *Tracer) Release(ctx context.Context) error {
	if err := t.stop(ctx); err != nil {
		return err // only a stopped process can be detached
	}
	if err := unix.PtraceDetach(t.Process.PID()); err != nil {
		return fmt.Errorf("process %d: detach from it: %w", t.Process.PID(), os.NewSyscallError("ptrace", err))
	}
	return nil
}

// stop stops the process, if it runs, even if ctx has ended.
func (t *Tracer) stop(ctx context.Context) error {
	if t.stopped {
		return nil
	}
	if err := ptrace(unix.PTRACE_INTERRUPT, t.Process.PID(), 0, 0); err != nil {
		return fmt.Errorf("process %d: stop it: %w", t.Process.PID(), err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_, err := t.Wait(ctx)
	return err
}

func ptrace(request, pid int, address, data uintptr) error {
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(pid), address, data, 0, 0); errno != 0 {
		return os.NewSyscallError("ptrace", errno)
	}
	return nil
}

// SignalOf is the signal of a signal-delivery-stop, which must be passed on; 0 for other
// stops.
func SignalOf(status unix.WaitStatus) unix.Signal {
	const systemCall = unix.SIGTRAP | 0x80 // PTRACE_O_TRACESYSGOOD
	if status>>16 != 0 || status.StopSignal() == systemCall {
		return 0
	}
	return status.StopSignal()
}

// IsExec reports whether it is the stop after an exec.
func IsExec(status unix.WaitStatus) bool {
	return status>>8 == unix.WaitStatus(unix.SIGTRAP)|unix.PTRACE_EVENT_EXEC<<8
}
