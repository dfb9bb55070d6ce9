package nsenter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// ErrOwnNamespace means that a process shares the mount namespace of the
// caller or of the host's PID 1, where nothing may be changed.
var ErrOwnNamespace = errors.New("the process is in the host's own mount namespace, where nothing is repaired")

// NamespaceID names a namespace for as long as it exists: device and inode of
// its file in nsfs (namespaces(7)).
type NamespaceID struct {
	Device uint64
	Inode  uint64
}

// Namespace returns the identity of one of the process's namespaces; kind is a
// name in /proc/<pid>/ns, such as "mnt" or "pid".
func (p *Process) Namespace(kind string) (NamespaceID, error) {
	var st unix.Stat_t
	_, err := retryEINTR(func() (int, error) {
		return 0, unix.Fstatat(int(p.proc.Fd()), "ns/"+kind, &st, 0)
	})
	if err != nil {
		return NamespaceID{}, fmt.Errorf("process %d: %w", p.pid,
			&os.PathError{Op: "stat", Path: fmt.Sprintf("/proc/%d/ns/%s", p.pid, kind), Err: err})
	}
	return NamespaceID{Device: st.Dev, Inode: st.Ino}, nil
}

// CheckForeign returns ErrOwnNamespace if the process is in the mount namespace
// of the caller or of the host's PID 1.
func (p *Process) CheckForeign() error {
	target, err := p.Namespace("mnt")
	if err != nil {
		return err
	}
	for _, path := range []string{"/proc/self/ns/mnt", "/proc/1/ns/mnt"} {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return fmt.Errorf("own mount namespace: %w", &os.PathError{Op: "stat", Path: path, Err: err})
		}
		if target == (NamespaceID{Device: st.Dev, Inode: st.Ino}) {
			return fmt.Errorf("process %d: %w", p.pid, ErrOwnNamespace)
		}
	}
	return nil
}

// InMountNamespace runs f on a thread of its own inside the process's mount
// namespace; root and working directory are the root of that namespace. Files
// that f opens can be used outside. It refuses the host's own namespace
// (ErrOwnNamespace). When ctx ends first, InMountNamespace returns its error
// and f is left alone on its thread: f must not write to what the caller reads
// then.
func (p *Process) InMountNamespace(ctx context.Context, f func() error) error {
	if err := p.CheckForeign(); err != nil {
		return err
	}
	ns, err := p.OpenProc("ns/mnt")
	if err != nil {
		return err
	}
	return onOwnThread(ctx, func() error {
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("process %d: enter its mount namespace: %w", p.pid, os.NewSyscallError("setns", err))
		}
		return f()
	})
}

// onOwnThread runs f on a thread that shares its file system state with no
// other and that ends when f returns.
func onOwnThread(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends here
		defer func() {
			if r := recover(); r != nil {
				done <- fmt.Errorf("panic: %v\n%s", r, debug.Stack())
			}
		}()
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			done <- fmt.Errorf("own file system state for a thread: %w", os.NewSyscallError("unshare", err))
			return
		}
		done <- f()
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("work in another mount namespace: %w", context.Cause(ctx))
	}
}

// OpenInRoot opens a file of the process's root directory by its absolute
// path, in one step and without following any symbolic or magic link, so that
// it cannot lead out of that root. Use unix.O_PATH to open a socket. The path
// may lie on any mount of the container.
func (p *Process) OpenInRoot(path string, flags int) (*os.File, error) {
	root, err := p.openProc("root", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	fd, err := retryEINTR(func() (int, error) {
		return unix.Openat2(int(root.Fd()), path, &unix.OpenHow{
			Flags:   uint64(flags | unix.O_CLOEXEC),
			Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
		})
	})
	if err != nil {
		return nil, fmt.Errorf("process %d: in its root: %w", p.pid, &os.PathError{Op: "openat2", Path: path, Err: err})
	}
	return os.NewFile(uintptr(fd), path), nil
}
