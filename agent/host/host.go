// Package host runs autofs-restore-hook as the host itself would: in the mount and
// cgroup namespaces of the host's PID 1, and in its control group.
//
// # Why not in the pod
//
// A repair needs the host's /dev/autofs, its folder of reports and locks and its
// control groups. And a pod that is not privileged may open no device but a few harmless ones:
// that rule hangs on its control group, not on what is mounted, so no mounted
// /dev helps (Linux: kernel/bpf/cgroup.c, BPF_CGROUP_DEVICE). A process that is
// born in the host's group is not bound by it, and it outlives an agent that is
// killed: no repair is cut short by an update of the DaemonSet.
//
// # What it needs
//
// hostPID, and the capabilities SYS_ADMIN, SYS_CHROOT and SYS_PTRACE. The program
// is opened before any namespace is entered and run through that descriptor: no
// path of the host decides what runs.
package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/cgroup"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// maxOutput bounds what is kept of a program's standard output, in bytes, and
// maxErrors of its standard error.
const (
	maxOutput = 8 << 20
	maxErrors = 64 << 10
)

// ErrNoHostPID means that the agent does not see the host's processes.
var ErrNoHostPID = errors.New("the agent is process 1 of its own pid namespace: its pod needs hostPID: true")

// Program is an open program file. It may be used by several goroutines.
type Program struct{ file *os.File }

// Open opens a program of our own image.
func Open(path string) (*Program, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("autofs-restore-hook: %w", err)
	}
	return &Program{f}, nil
}

// Close closes the program file.
func (p *Program) Close() error { return p.file.Close() }

// Content reads the program.
func (p *Program) Content() ([]byte, error) {
	info, err := p.file.Stat()
	if err != nil {
		return nil, fmt.Errorf("autofs-restore-hook: %w", err)
	}
	data, err := io.ReadAll(io.NewSectionReader(p.file, 0, info.Size()))
	if err != nil {
		return nil, fmt.Errorf("autofs-restore-hook: %w", err)
	}
	return data, nil
}

// Result is how a run ended.
type Result struct {
	// Status is the exit status, or -1 if a signal ended the program.
	Status int
	Stdout []byte
	Stderr string
	// Truncated is whether it wrote more to standard output than is kept.
	Truncated bool
}

// Run runs the program with the host's view and waits for it. An error means
// that it did not run to its end: it could not be started, a signal ended it, or
// ctx was over, which kills it. An exit status other than 0 is no error.
func (p *Program) Run(ctx context.Context, args ...string) (Result, error) {
	if os.Getpid() == 1 {
		return Result{Status: -1}, ErrNoHostPID
	}
	// The descriptor's number is the same in the child until it executes.
	cmd := exec.CommandContext(ctx, "/proc/self/fd/"+strconv.Itoa(int(p.file.Fd())), args...)
	cmd.Args[0] = "autofs-restore-hook"
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// Processes that the program leaves behind do not have its output.
	cmd.WaitDelay = time.Second
	out, errs := &bounded{limit: maxOutput}, &bounded{limit: maxErrors}
	cmd.Stdout, cmd.Stderr = out, errs
	if err := onHost(func(group *os.File) error {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(group.Fd())
		return cmd.Start()
	}); err != nil {
		return Result{Status: -1}, fmt.Errorf("start %q on the host: %w", cmd.Args, err)
	}
	err := cmd.Wait()
	r := Result{Status: cmd.ProcessState.ExitCode(), Stdout: out.buf.Bytes(), Stderr: errs.buf.String(), Truncated: out.over}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return r, fmt.Errorf("%q on the host: %w", cmd.Args, context.Cause(ctx))
	case errors.As(err, &exit) && exit.Exited():
		return r, nil
	case err != nil:
		return r, fmt.Errorf("%q on the host: %w", cmd.Args, err)
	}
	return r, nil
}

// onHost runs f on a thread in the host's mount and cgroup namespaces; group is
// the control group of the host's PID 1. The thread ends with it.
func onHost(f func(group *os.File) error) error {
	done := make(chan error, 1)
	nsenter.GoThread(func() { done <- enterAnd(f) })
	return <-done
}

func enterAnd(f func(group *os.File) error) error {
	init, err := nsenter.Open(1)
	if err != nil {
		return err
	}
	defer init.Close()
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := unix.Setns(int(init.Pidfd().Fd()), unix.CLONE_NEWCGROUP|unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter the namespaces of the host's PID 1 (capabilities SYS_ADMIN, SYS_CHROOT and SYS_PTRACE): %w",
			os.NewSyscallError("setns", err))
	}
	group, err := cgroup.Open(init)
	if err != nil {
		return fmt.Errorf("control group of the host's PID 1: %w", err)
	}
	defer group.Close()
	return f(group)
}

// bounded keeps the first bytes that are written to it.
type bounded struct {
	buf   bytes.Buffer
	limit int
	over  bool
}

func (b *bounded) Write(data []byte) (int, error) {
	if left := b.limit - b.buf.Len(); left < len(data) {
		b.over = true
		b.buf.Write(data[:left])
	} else {
		b.buf.Write(data)
	}
	return len(data), nil
}

// ReadFile reads a file of the host, of at most the given number of bytes.
func ReadFile(path string, limit int64) ([]byte, error) {
	if os.Getpid() == 1 {
		return nil, ErrNoHostPID
	}
	var data []byte
	err := onHost(func(*os.File) error {
		f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		data, err = io.ReadAll(io.LimitReader(f, limit+1))
		return err
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("on the host: %w", err)
	case int64(len(data)) > limit:
		return nil, fmt.Errorf("on the host: %s: longer than %d bytes", path, limit)
	}
	return data, nil
}
