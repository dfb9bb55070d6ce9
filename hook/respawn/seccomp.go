package respawn

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

// Filter is a seccomp filter of a process.
type Filter struct {
	// Program is made of struct sock_filter (include/uapi/linux/filter.h).
	Program []byte `json:"program"`
	// Log is whether it was installed with SECCOMP_FILTER_FLAG_LOG.
	Log bool `json:"log"`
}

const (
	instructionSize = 8 // of struct sock_filter
	maxFilters      = 256
)

// filtersOf reads a process's seccomp filters, the oldest first, as CRIU does
// for its images. The kernel shows them to a tracer only, of a stopped process.
func filtersOf(ctx context.Context, p *nsenter.Process) ([]Filter, error) {
	type answer struct {
		filters []Filter
		err     error
	}
	done := make(chan answer, 1)
	nsenter.GoThread(func() { // a tracer is a thread
		filters, err := readFilters(ctx, p)
		done <- answer{filters, err}
	})
	a := <-done
	if a.err != nil {
		return nil, fmt.Errorf("process %d: its seccomp filters: %w", p.PID(), a.err)
	}
	return a.filters, nil
}

func readFilters(ctx context.Context, p *nsenter.Process) (filters []Filter, err error) {
	if err := ptrace(unix.PTRACE_SEIZE, p.PID(), 0); err != nil {
		return nil, err
	}
	if err := p.Alive(); err != nil {
		return nil, err // its number may belong to another process by now
	}
	if err := ptrace(unix.PTRACE_INTERRUPT, p.PID(), 0); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	status, err := waitStop(ctx, p.PID())
	if err != nil {
		return nil, err
	}
	signal := uintptr(0)
	if status>>16 == 0 {
		signal = uintptr(status.StopSignal()) // one that was on its way
	}
	defer func() { err = errors.Join(err, ptrace(unix.PTRACE_DETACH, p.PID(), signal)) }()
	for i := range maxFilters {
		var program []byte
		size, errno := ptraceValue(unix.PTRACE_SECCOMP_GET_FILTER, p.PID(), uintptr(i), 0)
		if errno == unix.ENOENT {
			return filters, nil // that was the last one
		}
		metadata := [2]uint64{uint64(i)} // filter_off, flags
		if errno == 0 {
			program = make([]byte, max(size, 1)*instructionSize)
			_, errno = ptraceValue(unix.PTRACE_SECCOMP_GET_FILTER, p.PID(), uintptr(i), uintptr(unsafe.Pointer(&program[0])))
		}
		if errno == 0 {
			_, errno = ptraceValue(unix.PTRACE_SECCOMP_GET_METADATA, p.PID(), unsafe.Sizeof(metadata), uintptr(unsafe.Pointer(&metadata)))
		}
		if errno != 0 {
			return nil, os.NewSyscallError("ptrace", errno)
		}
		if notifies(program) {
			return nil, notPossible("one of its seccomp filters asks another process")
		}
		filters = append(filters, Filter{Program: program, Log: metadata[1]&unix.SECCOMP_FILTER_FLAG_LOG != 0})
	}
	return nil, notPossible("it has too many seccomp filters")
}

// notifies reports whether a filter may answer with SECCOMP_RET_USER_NOTIF: who
// listens for that cannot be copied.
func notifies(program []byte) bool {
	const actions, returnConstant, returnRegister = 0xffff0000, unix.BPF_RET | unix.BPF_K, unix.BPF_RET | unix.BPF_A
	for i := 0; i+instructionSize <= len(program); i += instructionSize {
		f := (*unix.SockFilter)(unsafe.Pointer(&program[i]))
		if f.Code == returnRegister || f.Code == returnConstant && f.K&actions == unix.SECCOMP_RET_USER_NOTIF {
			return true
		}
	}
	return false
}

// What a caller converts to uintptr among the arguments stays where it is: on the
// heap, whether this is inlined or not.
//
//go:uintptrescapes
func ptraceValue(request, pid int, address, data uintptr) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(pid), address, data, 0, 0)
	return int(n), errno
}

func ptrace(request, pid int, data uintptr) error {
	if _, errno := ptraceValue(request, pid, 0, data); errno != 0 {
		return os.NewSyscallError("ptrace", errno)
	}
	return nil
}

// waitStop waits until a traced process stops.
func waitStop(ctx context.Context, pid int) (unix.WaitStatus, error) {
	for {
		var status unix.WaitStatus
		got, err := unix.Wait4(pid, &status, unix.WNOHANG|unix.WALL, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, os.NewSyscallError("wait4", err)
		case got != 0 && status.Stopped():
			return status, nil
		case got != 0:
			return 0, fmt.Errorf("it ended (%s)", endOf(status))
		case ctx.Err() != nil:
			return 0, context.Cause(ctx)
		default:
			time.Sleep(100 * time.Microsecond)
		}
	}
}

// endOf says how a process ended.
func endOf(status unix.WaitStatus) string {
	if status.Signaled() {
		return fmt.Sprintf("signal %d", int(status.Signal()))
	}
	return fmt.Sprintf("exit status %d", status.ExitStatus())
}
