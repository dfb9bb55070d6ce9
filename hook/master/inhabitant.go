package master

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/clone"
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
	// rights is what capset(2) is given. It is here, on the heap, because what is
	// on the stack moves when that grows.
	rights struct {
		header unix.CapUserHeader
		data   [2]unix.CapUserData
	}
}

// step is one system call of an inhabitant.
func step(name string, number uintptr, args ...uintptr) clone.Step {
	s := clone.Step{Name: name, Number: number}
	copy(s.Args[:], args)
	return s
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
	var steps []clone.Step
	for _, s := range sockets {
		steps = append(steps, step("connect", unix.SYS_CONNECT, uintptr(s), uintptr(unsafe.Pointer(address)), length))
	}
	return settle(pid1, steps, capabilities)
}

// settle starts an inhabitant that carries out the given steps and then keeps
// only the given capabilities.
func settle(pid1 *nsenter.Process, work []clone.Step, capabilities uint64) (*inhabitant, error) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	defer unix.Close(pipe[0])
	p := &inhabitant{stop: make(chan struct{}), ended: make(chan struct{})}
	p.rights.header.Version = unix.LINUX_CAPABILITY_VERSION_3
	for i := range p.rights.data {
		half := uint32(capabilities >> (32 * i))
		p.rights.data[i] = unix.CapUserData{Effective: half, Permitted: half}
	}
	const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP
	steps := []clone.Step{
		step("prctl(PR_SET_DUMPABLE)", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0),
	}
	steps = append(steps, work...)
	steps = append(steps,
		step("setns", unix.SYS_SETNS, pid1.Pidfd().Fd(), namespaces),
		step("prctl(PR_SET_NO_NEW_PRIVS)", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1),
		step("capset", unix.SYS_CAPSET, uintptr(unsafe.Pointer(&p.rights.header)), uintptr(unsafe.Pointer(&p.rights.data))),
	)
	started := make(chan error, 1)
	nsenter.GoThread(func() { p.live(pid1, steps, pipe[1], started) })
	err := <-started
	unix.Close(pipe[1])
	if err != nil {
		return nil, fmt.Errorf("start a process in the container's pid namespace: %w", err)
	}
	if err := clone.ReadVerdict(pipe[0], steps); err != nil {
		p.end()
		return nil, fmt.Errorf("process in the container's pid namespace: %w", err)
	}
	return p, nil
}

// live starts the process and reaps it. The thread stays, since that gets its
// death signal when the thread that made it ends, and is never used again,
// since its children would be born in the container.
func (p *inhabitant) live(pid1 *nsenter.Process, steps []clone.Step, report int, started chan<- error) {
	defer close(p.ended)
	if err := unix.Setns(int(pid1.Pidfd().Fd()), unix.CLONE_NEWPID); err != nil {
		started <- os.NewSyscallError("setns", err)
		return
	}
	_, pidfd, err := clone.Start(steps, report)
	if err != nil {
		started <- err
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
