package master

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// inhabitant is a process of ours inside a container's pid namespace. It is a
// copy of this process that runs no program: it carries out a few system calls,
// gives up what the container's own PID 1 does not have (namespaces, root,
// capabilities, all files), cannot be traced or dumped by a process with fewer
// rights, and sleeps. The kernel ends it when we end.
type inhabitant struct {
	pidfd int
	stop  chan struct{}
	ended chan struct{}
}

// step is one system call of an inhabitant.
type step struct {
	name    string
	number  uintptr
	a, b, c uintptr
}

// startPeer starts the process on whose behalf our connections to systemd are
// made: it connects the given sockets to the socket that is open as target.
// systemd refuses a connection whose peer has no number in its pid namespace
// (src/basic/socket-util.c, getpeercred: ENODATA), and looks up the
// capabilities of the peer's number in its /proc when it is asked to do
// something, so the peer must be there until we are done.
func startPeer(target *os.File, sockets []int, pid1 *nsenter.Process) (*inhabitant, error) {
	address, length, err := socketAddress(fmt.Sprintf("/proc/self/fd/%d", target.Fd()))
	if err != nil {
		return nil, err
	}
	defer runtime.KeepAlive(address)
	capabilities, err := effectiveCapabilities(pid1)
	if err != nil {
		return nil, err
	}
	var steps []step
	for _, s := range sockets {
		steps = append(steps, step{"connect", unix.SYS_CONNECT, uintptr(s), uintptr(unsafe.Pointer(address)), length})
	}
	return settle(pid1, steps, capabilities, 0)
}

// occupy starts a process that does nothing but have the given number in the
// container's pid namespace, so that no other process gets it.
func occupy(pid1 *nsenter.Process, number int) (*inhabitant, error) {
	return settle(pid1, nil, 0, number)
}

// settle starts an inhabitant that carries out the given steps and then keeps
// only the given capabilities. number is its number in the container, 0 for
// the next one.
func settle(pid1 *nsenter.Process, work []step, capabilities uint64, number int) (*inhabitant, error) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	defer unix.Close(pipe[0])
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Effective: uint32(capabilities), Permitted: uint32(capabilities)},
		{Effective: uint32(capabilities >> 32), Permitted: uint32(capabilities >> 32)},
	}
	defer runtime.KeepAlive(&header)
	defer runtime.KeepAlive(&data)
	const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP
	steps := []step{
		{"prctl(PR_SET_PDEATHSIG)", unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0},
		{"prctl(PR_SET_DUMPABLE)", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0},
	}
	steps = append(steps, work...)
	steps = append(steps,
		step{"setns", unix.SYS_SETNS, pid1.Pidfd().Fd(), namespaces, 0},
		step{"prctl(PR_SET_NO_NEW_PRIVS)", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0},
		step{"capset", unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0},
	)
	p := &inhabitant{stop: make(chan struct{}), ended: make(chan struct{})}
	started := make(chan error, 1)
	nsenter.GoThread(func() { p.live(pid1, steps, pipe[1], number, started) })
	err := <-started
	unix.Close(pipe[1])
	if err != nil {
		return nil, fmt.Errorf("start a process in the container's pid namespace: %w", err)
	}
	if err := readVerdict(pipe[0], steps); err != nil {
		p.end()
		return nil, fmt.Errorf("process in the container's pid namespace: %w", err)
	}
	return p, nil
}

// live starts the process and reaps it. The thread stays, since that gets its
// death signal when the thread that made it ends, and is never used again,
// since its children would be born in the container.
func (p *inhabitant) live(pid1 *nsenter.Process, steps []step, report, number int, started chan<- error) {
	defer close(p.ended)
	if err := unix.Setns(int(pid1.Pidfd().Fd()), unix.CLONE_NEWPID); err != nil {
		started <- os.NewSyscallError("setns", err)
		return
	}
	pidfd, err := fork(steps, report, number)
	if err != nil {
		started <- os.NewSyscallError("clone3", err)
		return
	}
	p.pidfd = pidfd
	started <- nil
	<-p.stop
	_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
	for {
		err := unix.Waitid(unix.P_PIDFD, pidfd, nil, unix.WEXITED, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	unix.Close(pidfd)
}

// end ends the process and returns when it is gone.
func (p *inhabitant) end() {
	close(p.stop)
	<-p.ended
}

// fork makes a copy of the process that carries out the steps, writes 8 bytes
// (number of the failed step, or of steps, and errno) to report, and sleeps. It
// runs no Go code but this: the copy has one thread and no scheduler. All
// signals are blocked in it.
//
//go:norace
func fork(steps []step, report, number int) (int, error) {
	var pidfd int32 = -1
	args := cloneArgs{
		flags:      unix.CLONE_PIDFD,
		pidfd:      uint64(uintptr(unsafe.Pointer(&pidfd))),
		exitSignal: uint64(unix.SIGCHLD),
	}
	wanted := int32(number)
	if number > 0 {
		args.setTID, args.setTIDSize = uint64(uintptr(unsafe.Pointer(&wanted))), 1
	}
	all := ^uint64(0)
	var old uint64
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	if _, _, errno := syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK,
		uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), 8, 0, 0); errno != 0 {
		return -1, errno
	}
	_, errno := cloneAndRun(&args, steps, report)
	_, _, _ = syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	runtime.KeepAlive(&wanted)
	return int(pidfd), nil
}

// cloneArgs is struct clone_args of Linux 5.5 (include/uapi/linux/sched.h).
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize uint64
}

//go:norace
//go:nosplit
func cloneAndRun(args *cloneArgs, steps []step, report int) (uintptr, syscall.Errno) {
	pid, _, errno := syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(args)), unsafe.Sizeof(*args), 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	// From here on this is the copy.
	var verdict [2]uint32
	for verdict[0] = 0; verdict[0] < uint32(len(steps)); verdict[0]++ {
		s := &steps[verdict[0]]
		if _, _, errno := syscall.RawSyscall(s.number, s.a, s.b, s.c); errno != 0 {
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

// readVerdict reads what fork's copy wrote.
func readVerdict(pipe int, steps []step) error {
	var b [8]byte
	n, err := unix.Read(pipe, b[:])
	if errors.Is(err, unix.EINTR) {
		return readVerdict(pipe, steps)
	}
	if err != nil {
		return os.NewSyscallError("read", err)
	}
	if n != len(b) {
		return errors.New("it ended before it was ready")
	}
	failed, errno := binary.NativeEndian.Uint32(b[:]), binary.NativeEndian.Uint32(b[4:])
	if errno != 0 && int(failed) < len(steps) {
		return os.NewSyscallError(steps[failed].name, unix.Errno(errno))
	}
	return nil
}
