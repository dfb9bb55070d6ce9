// Package clone makes copies of this process that make a list of system calls, which may
// end in an exec, and then sleep.
//
// A Go program cannot fork: the copy has one thread and no scheduler. So the copy runs no
// Go code except one loop of this package. All signals are blocked in it.
package clone

import (
	"cmp"
	"encoding/binary"
	"errors"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
)

// Step is one system call of a copy. Args may be addresses of this process's
// memory, which the caller keeps alive: the copy has the same memory.
type Step struct {
	Name   string
	Number uintptr
	Args   [5]uintptr
}

// Start makes a copy of the calling thread that runs the steps. After the last one, or
// the first that fails, it writes a verdict to the descriptor report, for ReadVerdict,
// closes all files and sleeps. The caller closes the pidfd; pid is the copy's number in
// the caller's pid namespace.
//
// The copy is in the pid namespace that the thread has set for its children. The kernel
// kills it with the calling thread, until a step changes that.
func Start(steps []Step, report int) (pid, pidfd int, err error) {
	// No other child may inherit the pipe.
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	var alive [2]int
	if err := syscall.Pipe2(alive[:], unix.O_CLOEXEC); err != nil {
		return 0, -1, os.NewSyscallError("pipe2", err)
	}
	pid, pidfd, err = start(steps, report, alive)
	_ = syscall.Close(alive[1])
	if err == nil {
		awaitAlive(alive[0])
	}
	_ = syscall.Close(alive[0])
	return pid, pidfd, err
}

// start makes the copy. It calls nothing that makes the stack grow, which would move the
// variables whose addresses the kernel gets.
//
//go:norace
func start(steps []Step, report int, alive [2]int) (pid, pidfd int, err error) {
	var fd int32 = -1
	args := cloneArgs{
		flags:      unix.CLONE_PIDFD,
		pidfd:      uint64(uintptr(unsafe.Pointer(&fd))),
		exitSignal: uint64(unix.SIGCHLD),
	}
	all := ^uint64(0)
	var old uint64
	if _, _, errno := syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK,
		uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), 8, 0, 0); errno != 0 {
		return 0, -1, os.NewSyscallError("rt_sigprocmask", errno)
	}
	made, errno := cloneAndRun(&args, steps, report, alive)
	_, _, _ = syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0)
	if errno != 0 {
		return 0, -1, os.NewSyscallError("clone3", errno)
	}
	return int(made), int(fd), nil
}

// aliveTime bounds how long a copy may take to request its death signal.
const aliveTime = 2 * time.Second

// awaitAlive returns when the copy has requested a signal at the death of its parent. If
// this process ends before, or stops waiting, the copy finds no reader and exits: its
// parent may have ended before the request.
func awaitAlive(pipe int) {
	_, _ = sys.Poll([]unix.PollFd{{Fd: int32(pipe), Events: unix.POLLIN}}, aliveTime)
}

// cloneArgs is struct clone_args of Linux 5.3 (include/uapi/linux/sched.h).
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls uint64
}

//go:norace
//go:nosplit
func cloneAndRun(args *cloneArgs, steps []Step, report int, alive [2]int) (uintptr, syscall.Errno) {
	pid, _, errno := syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(args)), unsafe.Sizeof(*args), 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	// The copy runs from here on.
	var verdict [2]uint32
	_, _, _ = syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0)
	_, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, uintptr(alive[0]), 0, 0)
	if _, _, errno = syscall.RawSyscall(unix.SYS_WRITE, uintptr(alive[1]), uintptr(unsafe.Pointer(&verdict)), 1); errno != 0 {
		_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 1, 0, 0)
	}
	_, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, uintptr(alive[1]), 0, 0)
	for verdict[0] = 0; verdict[0] < uint32(len(steps)); verdict[0]++ {
		s := &steps[verdict[0]]
		if _, _, errno = syscall.RawSyscall6(s.Number, s.Args[0], s.Args[1], s.Args[2], s.Args[3], s.Args[4], 0); errno != 0 {
			verdict[1] = uint32(errno)
			break
		}
	}
	_, _, _ = syscall.RawSyscall(unix.SYS_WRITE, uintptr(report), uintptr(unsafe.Pointer(&verdict)), 8)
	_, _, _ = syscall.RawSyscall(unix.SYS_CLOSE_RANGE, 0, 1<<31-1, 0)
	for {
		_, _, _ = syscall.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0) // for ever
	}
}

// ErrNoVerdict means that a copy ended, or executed a program, without a verdict.
var ErrNoVerdict = errors.New("it ended before it was ready")

// ErrLate means that a copy has not run its steps within the limit: it may be stopped, as by a
// process of the container that it is in.
var ErrLate = errors.New("it takes too long")

// ReadVerdict waits for the verdict of a copy: nil if it has run all steps, else the
// error of the step that failed.
func ReadVerdict(pipe *os.File, steps []Step, limit time.Duration) error {
	if n, err := sys.Poll([]unix.PollFd{{Fd: int32(pipe.Fd()), Events: unix.POLLIN}}, limit); err != nil || n == 0 {
		return cmp.Or(err, ErrLate)
	}
	var b [8]byte
	n, err := sys.Read(pipe, b[:])
	if err != nil {
		return err
	}
	if n != len(b) {
		return ErrNoVerdict
	}
	failed, errno := binary.NativeEndian.Uint32(b[:]), binary.NativeEndian.Uint32(b[4:])
	if errno != 0 && int(failed) < len(steps) {
		return os.NewSyscallError(steps[failed].Name, unix.Errno(errno))
	}
	return nil
}
