package systemd

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/helper/clone"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// standIn is a helper process in a container's pid namespace, on whose behalf this program
// connects to the container's systemd. It is a copy of this process that makes a few
// system calls, gives up what the container's PID 1 does not have (namespaces, root
// directory, capabilities, all files), cannot be traced or dumped by a process with fewer
// capabilities, and sleeps. The kernel kills it when this process ends.
type standIn struct {
	pidfd int
	stop  chan struct{}
	ended chan struct{}
	// capset is on the heap because variables on the stack move when it grows.
	capset *sys.Capset
}

// step is one system call of a stand-in.
func step(name string, number uintptr, args ...uintptr) clone.Step {
	s := clone.Step{Name: name, Number: number}
	copy(s.Args[:], args)
	return s
}

// dialAs starts a stand-in that connects the socket to the socket that is open as target.
// systemd refuses a connection whose peer has no number in its pid namespace
// (src/basic/socket-util.c, getpeercred: ENODATA), and at each request looks up the
// capabilities of that number in its /proc, so the stand-in must exist as long as the
// connection.
func dialAs(target *os.File, socket int, pid1 *nsenter.Process) (*standIn, error) {
	address, length, err := socketAddress(fmt.Sprintf("/proc/self/fd/%d", target.Fd()))
	if err != nil {
		return nil, err
	}
	defer runtime.KeepAlive(address)
	capabilities, err := commonCapabilities(pid1)
	if err != nil {
		return nil, err
	}
	connect := step("connect", unix.SYS_CONNECT, uintptr(socket), uintptr(unsafe.Pointer(address)), length)
	return startStandIn(pid1, []clone.Step{connect}, capabilities)
}

// startStandIn starts a stand-in that runs the given steps and then keeps only the given
// capabilities.
func startStandIn(pid1 *nsenter.Process, work []clone.Step, capabilities uint64) (*standIn, error) {
	verdict, report, err := sys.Pipe()
	if err != nil {
		return nil, err
	}
	defer verdict.Close()
	p := &standIn{stop: make(chan struct{}), ended: make(chan struct{}), capset: sys.NewCapset(capabilities)}
	const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP
	steps := []clone.Step{
		step("prctl(PR_SET_DUMPABLE)", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0),
	}
	steps = append(steps, work...)
	steps = append(steps,
		step("setns", unix.SYS_SETNS, pid1.Pidfd().Fd(), namespaces),
		step("prctl(PR_SET_NO_NEW_PRIVS)", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1),
		step("capset", unix.SYS_CAPSET, uintptr(unsafe.Pointer(&p.capset.Header)), uintptr(unsafe.Pointer(&p.capset.Data))),
	)
	started := make(chan error, 1)
	nsenter.GoThread(func() { p.run(pid1, steps, report, started) })
	err = <-started
	report.Close()
	if err != nil {
		return nil, fmt.Errorf("start a process in the container's pid namespace: %w", err)
	}
	if err := clone.ReadVerdict(verdict, steps, greetingTime); err != nil {
		p.end()
		return nil, fmt.Errorf("process in the container's pid namespace: %w", err)
	}
	return p, nil
}

// run starts the process and reaps it. The thread stays, because the process gets its
// death signal when the thread that made it ends, and ends with run, because its
// children would be in the container.
func (p *standIn) run(pid1 *nsenter.Process, steps []clone.Step, report *os.File, started chan<- error) {
	defer close(p.ended)
	if err := unix.Setns(int(pid1.Pidfd().Fd()), unix.CLONE_NEWPID); err != nil {
		started <- os.NewSyscallError("setns", err)
		return
	}
	_, pidfd, err := clone.Start(steps, int(report.Fd()))
	if err != nil {
		started <- err
		return
	}
	p.pidfd = pidfd
	started <- nil
	<-p.stop
	_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
	_, _ = sys.Retry(func() (int, error) { return 0, unix.Waitid(unix.P_PIDFD, pidfd, nil, unix.WEXITED, nil) })
	unix.Close(pidfd)
}

// end kills the process and returns when it is reaped.
func (p *standIn) end() {
	close(p.stop)
	<-p.ended
}
