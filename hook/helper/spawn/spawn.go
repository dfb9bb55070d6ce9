// Package spawn starts helper processes that outlive this one. They run the same program
// with a hidden verb.
package spawn

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/cgroup"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// FirstFile is the new process's descriptor of the first of its files.
const FirstFile = 3

// ErrNotMoved means that a helper process stayed in the container's control group.
var ErrNotMoved = errors.New("a helper process stayed in the container's control group")

// StartSelf starts this program with the given arguments and files, in a session of
// its own, with an empty environment, and standard input, output and error on
// /dev/null. It inherits no other files: a runtime waits for all processes that have the
// output of its hook open.
//
// It keeps only the given capabilities of this process, one bit for each, and cannot gain
// others; [AllCapabilities] keeps all.
//
// It moves to the control groups of model, unless that is nil: runc starts CRIU and
// its scripts in the container's. If that fails, the error is ErrNotMoved and the process
// is returned too. The caller closes the process, and need not wait for it.
func StartSelf(args []string, files []*os.File, model *nsenter.Process, capabilities uint64) (*nsenter.Process, error) {
	// The files of CRIU or the runtime must not be inherited (Linux 5.11).
	_ = unix.CloseRange(FirstFile, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	var group *os.File
	if model != nil {
		group, _ = cgroup.Open(model)
	}
	pid, err := start(args, files, group, capabilities)
	if err != nil && group != nil { // the group of another user, after CAP_DAC_OVERRIDE was dropped
		pid, err = start(args, files, nil, capabilities)
	}
	group.Close()
	if err != nil {
		return nil, err
	}
	p, err := nsenter.Open(pid)
	if err != nil { // it is not reaped: the number is still its own
		_ = unix.Kill(pid, unix.SIGKILL)
		_, _ = sys.Retry(func() (int, error) { return unix.Wait4(pid, nil, 0, nil) })
		return nil, err
	}
	if model == nil {
		return p, nil
	}
	if err := cgroup.MoveLike(p.PID(), model); err != nil {
		return p, fmt.Errorf("%w: %w", ErrNotMoved, err)
	}
	return p, nil
}

// start starts the program, in group unless that is nil, with CLONE_INTO_CGROUP: moving a
// process takes milliseconds. It does not use os.StartProcess, which starts another process
// first, to see what the kernel can do.
func start(args []string, files []*os.File, group *os.File, capabilities uint64) (pid int, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	attr := &syscall.ProcAttr{Dir: "/", Env: []string{}, Sys: &syscall.SysProcAttr{Setsid: true}}
	for _, f := range append([]*os.File{null, null, null}, files...) {
		attr.Files = append(attr.Files, f.Fd())
	}
	defer runtime.KeepAlive(files)
	if group != nil {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(group.Fd())
	}
	const self = "/proc/self/exe"
	started := make(chan struct{})
	nsenter.GoThread(func() { // capabilities are those of a thread, and are inherited
		defer close(started)
		if err = restrict(capabilities); err == nil {
			pid, _, err = syscall.StartProcess(self, append([]string{self}, args...), attr)
			err = os.NewSyscallError("fork and exec", err)
		}
	})
	<-started
	return pid, err
}
