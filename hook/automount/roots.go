package automount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/owner"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/ptrace"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
	"golang.org/x/sys/unix"
)

// Root names an autofs mount that is to be opened.
type Root struct {
	Path   string
	Device uint64 // st_dev
}

// stopTime bounds how long a daemon is stopped.
const stopTime = 2 * time.Second

// OpenBlockedRoots opens mounts of an automount daemon that processes wait on. Only their master
// can open such mounts, so the daemon itself opens them, by system calls injected with
// ptrace(2), and the descriptors are copied with pidfd_getfd(2). The daemon is only
// paused; still, use it only for a daemon whose mounts are stale. Mounts that it could
// not open are nil in the list; the errors are joined.
func OpenBlockedRoots(ctx context.Context, daemon *owner.Member, list []Root) ([]*os.File, error) {
	if err := daemon.Check(); err != nil {
		return make([]*os.File, len(list)), fmt.Errorf("open mounts through process %d: %w", daemon.PID(), err)
	}
	return openViaMaster(ctx, daemon.Process, list)
}

func openViaMaster(ctx context.Context, daemon *nsenter.Process, list []Root) ([]*os.File, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, stopTime, fmt.Errorf("not finished within %s", stopTime))
	defer cancel()
	type result struct {
		files []*os.File
		err   error
	}
	done := make(chan result, 1)
	nsenter.GoThread(func() { // the tracer is a thread, not a process (ptrace(2))
		files, err := openRoots(ctx, daemon, list)
		done <- result{files, err}
	})
	r := <-done
	if r.err != nil {
		r.err = fmt.Errorf("open mounts through process %d: %w", daemon.PID(), r.err)
	}
	return r.files, r.err
}

func openRoots(ctx context.Context, daemon *nsenter.Process, list []Root) ([]*os.File, error) {
	files := make([]*os.File, len(list))
	control, err := controlOf(daemon)
	if err != nil {
		return files, err
	}
	in, err := ptrace.Inject(ctx, daemon)
	if err != nil {
		return files, err
	}
	var errs []error
	for i, root := range list {
		files[i], err = openRoot(ctx, in, control, root)
		errs = append(errs, err)
	}
	return files, errors.Join(append(errs, in.Close(ctx))...)
}

// controlOf returns the descriptor with which the process has /dev/autofs open.
func controlOf(p *nsenter.Process) (int, error) {
	files, err := p.Descriptors()
	if err != nil {
		return 0, err
	}
	for _, fd := range files {
		f, err := p.OpenPath("fd/" + strconv.Itoa(fd))
		if err != nil {
			continue
		}
		st, err := sys.Stat(f)
		f.Close()
		if err == nil && autofs.IsControl(&st) {
			return fd, nil
		}
	}
	return 0, errors.New("it does not have " + autofs.ControlPath + " open")
}

// openRoot makes the daemon open a mount, copies the descriptor and closes the original.
func openRoot(ctx context.Context, in *ptrace.Injector, control int, root Root) (*os.File, error) {
	number, argument, err := autofs.OpenRequest(root.Path, root.Device)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", root.Path, err)
	}
	at, err := in.Push(argument)
	if err != nil {
		return nil, err
	}
	if err := in.Call(ctx, unix.SYS_IOCTL, [3]uint64{uint64(control), uint64(number), at}); err != nil {
		return nil, fmt.Errorf("%q: %w", root.Path, os.NewSyscallError("ioctl AUTOFS_DEV_IOCTL_OPENMOUNT", err))
	}
	if err := in.Read(at, argument); err != nil {
		return nil, err
	}
	theirs := autofs.OpenedFile(argument)
	fd, err := sys.PidfdGetfd(in.Process().Pidfd(), theirs)
	err = errors.Join(err, in.Call(ctx, unix.SYS_CLOSE, [3]uint64{uint64(theirs)}))
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), root.Path)
	if device, err := autofs.Device(f); err != nil || device != root.Device {
		f.Close()
		return nil, fmt.Errorf("%q: another mount was opened: %w", root.Path, errors.Join(err, unix.ESTALE))
	}
	return f, nil
}
