package nsenter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
)

// ErrOwnNamespace means that a process shares the mount namespace of the
// caller or of the host's PID 1, where nothing may be changed.
var ErrOwnNamespace = errors.New("the process is in the host's own mount namespace, where nothing is repaired")

// NamespaceID identifies a namespace for as long as it exists: device and inode of its
// file in nsfs (namespaces(7)).
type NamespaceID struct {
	Device uint64
	Inode  uint64
}

// Namespace returns the identity of one of the process's namespaces; kind is a
// name in /proc/<pid>/ns, such as "mnt" or "pid".
func (p *Process) Namespace(kind string) (NamespaceID, error) {
	st, err := sys.StatAt(p.proc, "ns/"+kind, 0)
	if err != nil {
		return NamespaceID{}, fmt.Errorf("process %d: %w", p.pid, ended(err))
	}
	return NamespaceID{Device: st.Dev, Inode: st.Ino}, nil
}

// MountNamespaceOf returns the mount namespace of the process that has the number now;
// the zero NamespaceID if there is none. Use it to filter processes, and Open those that
// matter.
func MountNamespaceOf(pid int) NamespaceID {
	st, _ := sys.StatAt(nil, "/proc/"+strconv.Itoa(pid)+"/ns/mnt", 0)
	return NamespaceID{Device: st.Dev, Inode: st.Ino}
}

const hostInit = "/proc/1/ns/mnt"

// CheckForeign returns ErrOwnNamespace if the process is in the mount namespace
// of the caller or of the host's PID 1.
func (p *Process) CheckForeign() error {
	target, err := p.Namespace("mnt")
	if err != nil {
		return err
	}
	for _, path := range []string{"/proc/thread-self/ns/mnt", hostInit} {
		st, err := sys.StatAt(nil, path, 0)
		if path == hostInit && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)) {
			continue // PID 1 has capabilities that we lack; our own namespace was compared
		}
		if err != nil {
			return fmt.Errorf("own mount namespace: %w", err)
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
// (ErrOwnNamespace). If ctx ends first, InMountNamespace returns its error while f
// still runs: f must not write to variables that the caller reads then.
func (p *Process) InMountNamespace(ctx context.Context, f func(*Thread) error) error {
	ns, err := p.OpenMountNamespace()
	if err != nil {
		return err
	}
	return OnThread(ctx, func(t *Thread) error {
		defer ns.Close()
		if err := t.Enter(ns); err != nil {
			return fmt.Errorf("process %d: %w", p.pid, err)
		}
		return f(t)
	})
}

// OpenMountNamespace opens the process's mount namespace, for [Thread.Enter]. It refuses
// the host's own (ErrOwnNamespace). The calling thread must be in the host's.
func (p *Process) OpenMountNamespace() (*os.File, error) {
	if err := p.CheckForeign(); err != nil {
		return nil, err
	}
	return p.OpenProc("ns/mnt")
}

// Enter moves the thread to a mount namespace.
func (t *Thread) Enter(ns *os.File) error {
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter a mount namespace: %w", os.NewSyscallError("setns", err))
	}
	return nil
}

// Thread is the thread that runs inside another mount namespace, where /proc
// may be anything.
type Thread struct{ proc *os.File }

// OpenProc opens a file of the thread's own directory in the host's /proc, such
// as "mountinfo", which then shows the namespace that the thread is in.
func (t *Thread) OpenProc(name string) (*os.File, error) {
	return sys.OpenAt(t.proc, name, unix.O_RDONLY)
}

// Readlink reads a link of the thread's own directory in the host's /proc, such as
// "fd/3": the path that it shows begins at the root of the thread's mount namespace.
func (t *Thread) Readlink(name string) (string, error) {
	return sys.ReadlinkAt(t.proc, name)
}

// CopyMountNamespace moves the thread to a copy of the mount namespace that it is in.
func (t *Thread) CopyMountNamespace() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("copy a mount namespace: %w", os.NewSyscallError("unshare", err))
	}
	return nil
}

// CopyPrivately is [Thread.CopyMountNamespace] for a copy without propagation.
func (t *Thread) CopyPrivately() error {
	if err := t.CopyMountNamespace(); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make a copy of mounts private: %w", os.NewSyscallError("mount", err))
	}
	return nil
}

// GoThread runs f on a thread that ends with it, so that f may change the state of the
// thread. It is never the main thread, which cannot end.
func GoThread(f func()) {
	go func() {
		runtime.LockOSThread() // not unlocked after f: the thread ends here
		if unix.Gettid() != unix.Getpid() {
			f()
			return
		}
		defer runtime.UnlockOSThread()
		done := make(chan struct{})
		GoThread(func() { // gets another thread while this one is locked
			defer close(done)
			f()
		})
		<-done
	}()
}

// OnThread runs f on a thread that shares its file system state with no other thread
// and ends when f returns: see [Process.InMountNamespace] for ctx. The thread begins in the
// mount namespace of this process.
func OnThread(ctx context.Context, f func(*Thread) error) error {
	done := make(chan error, 1)
	GoThread(func() {
		defer func() {
			if r := recover(); r != nil {
				done <- fmt.Errorf("panic: %v\n%s", r, debug.Stack())
			}
		}()
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			done <- fmt.Errorf("own file system state for a thread: %w", os.NewSyscallError("unshare", err))
			return
		}
		// Opened here: inside a container /proc does not show this thread.
		proc, err := sys.OpenAt(nil, "/proc/thread-self", unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			done <- err
			return
		}
		defer proc.Close()
		done <- f(&Thread{proc: proc})
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("work in another mount namespace: %w", context.Cause(ctx))
	}
}

// OpenInRoot opens a file in the process's root directory by its absolute path, with
// one system call that follows no symbolic or magic link, so that the path cannot lead
// out of that root. Use unix.O_PATH to open a socket. The path may lie on any mount of
// the container. (pathrs-lite is for paths with links, which are refused here.)
func (p *Process) OpenInRoot(path string, flags int) (*os.File, error) {
	root, err := p.openProc("root", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := sys.OpenAt2(root, path, flags, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS)
	if err != nil {
		return nil, fmt.Errorf("process %d: in its root: %w", p.pid, err)
	}
	return f, nil
}

// CopyMountNamespace makes a private copy of the process's mount namespace, with all of
// its mounts and no propagation. The copy exists as long as the returned file is open in
// any process.
func (p *Process) CopyMountNamespace(ctx context.Context) (*os.File, error) {
	copied := make(chan *os.File, 1)
	err := p.InMountNamespace(ctx, func(t *Thread) error {
		if err := t.CopyPrivately(); err != nil {
			return fmt.Errorf("process %d: %w", p.pid, err)
		}
		f, err := t.OpenProc("ns/mnt")
		if err != nil {
			return fmt.Errorf("process %d: copy of its mount namespace: %w", p.pid, err)
		}
		copied <- f
		return nil
	})
	if err != nil {
		return nil, err
	}
	return <-copied, nil
}

// InNamespace is InMountNamespace for an open mount namespace, such as one that
// CopyMountNamespace made.
func InNamespace(ctx context.Context, ns *os.File, f func(*Thread) error) error {
	return OnThread(ctx, func(t *Thread) error {
		if err := t.Enter(ns); err != nil {
			return err
		}
		return f(t)
	})
}
