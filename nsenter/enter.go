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
			ended(&os.PathError{Op: "stat", Path: fmt.Sprintf("/proc/%d/ns/%s", p.pid, kind), Err: err}))
	}
	return NamespaceID{Device: st.Dev, Inode: st.Ino}, nil
}

// MountNamespaceOf looks at the mount namespace of whatever process has the
// number now; the zero NamespaceID if there is none. It is for leaving processes
// out: open those that matter.
func MountNamespaceOf(pid int) NamespaceID {
	var st unix.Stat_t
	if unix.Stat("/proc/"+strconv.Itoa(pid)+"/ns/mnt", &st) != nil {
		return NamespaceID{}
	}
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
		var st unix.Stat_t
		err := unix.Stat(path, &st)
		if path == hostInit && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)) {
			continue // PID 1 has capabilities that we lack; our own namespace was compared
		}
		if err != nil {
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
func (p *Process) InMountNamespace(ctx context.Context, f func(*Thread) error) error {
	if err := p.CheckForeign(); err != nil {
		return err
	}
	ns, err := p.OpenProc("ns/mnt")
	if err != nil {
		return err
	}
	return onOwnThread(ctx, func(t *Thread) error {
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("process %d: enter its mount namespace: %w", p.pid, os.NewSyscallError("setns", err))
		}
		return f(t)
	})
}

// Thread is the thread that runs inside another mount namespace, where /proc
// may be anything.
type Thread struct{ proc *os.File }

// OpenProc opens a file of the thread's own directory in the host's /proc, such
// as "mountinfo", which then shows the namespace that the thread is in.
func (t *Thread) OpenProc(name string) (*os.File, error) {
	fd, err := retryEINTR(func() (int, error) {
		return unix.Openat(int(t.proc.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/proc/thread-self/" + name, Err: err}
	}
	return os.NewFile(uintptr(fd), "/proc/thread-self/"+name), nil
}

// Readlink reads a link of the thread's own directory in the host's /proc, such as
// "fd/3": the path that it shows begins at the root of the thread's mount namespace.
func (t *Thread) Readlink(name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := retryEINTR(func() (int, error) { return unix.Readlinkat(int(t.proc.Fd()), name, buf) })
	if err != nil {
		return "", &os.PathError{Op: "readlink", Path: "/proc/thread-self/" + name, Err: err}
	}
	return string(buf[:n]), nil
}

// CopyMountNamespace moves the thread to a copy of the mount namespace that it is in.
func (t *Thread) CopyMountNamespace() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("copy a mount namespace: %w", os.NewSyscallError("unshare", err))
	}
	return nil
}

// GoThread runs f on a thread that ends with it, so that f may change what
// belongs to a thread. It is never the main thread, which cannot end.
func GoThread(f func()) {
	go func() {
		runtime.LockOSThread() // not unlocked after f: the thread ends here
		if unix.Gettid() != unix.Getpid() {
			f()
			return
		}
		defer runtime.UnlockOSThread()
		done := make(chan struct{})
		GoThread(func() { // gets another thread, since this one is taken
			defer close(done)
			f()
		})
		<-done
	}()
}

// onOwnThread runs f on a thread that shares its file system state with no
// other and that ends when f returns.
func onOwnThread(ctx context.Context, f func(*Thread) error) error {
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
		fd, err := unix.Open("/proc/thread-self", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			done <- &os.PathError{Op: "open", Path: "/proc/thread-self", Err: err}
			return
		}
		t := &Thread{proc: os.NewFile(uintptr(fd), "/proc/thread-self")}
		defer t.proc.Close()
		done <- f(t)
	})
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
		fd, err := unix.Openat2(int(root.Fd()), path, &unix.OpenHow{
			Flags:   uint64(flags | unix.O_CLOEXEC),
			Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
		})
		if errors.Is(err, unix.EAGAIN) { // "..", while somebody renamed or mounted something (openat2(2))
			err = unix.EINTR
		}
		return fd, err
	})
	if err != nil {
		return nil, fmt.Errorf("process %d: in its root: %w", p.pid, &os.PathError{Op: "openat2", Path: path, Err: err})
	}
	return os.NewFile(uintptr(fd), path), nil
}

// CopyMountNamespace makes a private copy of the process's mount namespace:
// every mount of it, cut off from any propagation. The copy lives as long as
// the returned file is open somewhere.
func (p *Process) CopyMountNamespace(ctx context.Context) (*os.File, error) {
	if err := p.CheckForeign(); err != nil {
		return nil, err
	}
	ns, err := p.OpenProc("ns/mnt")
	if err != nil {
		return nil, err
	}
	copied := make(chan *os.File, 1)
	err = onOwnThread(ctx, func(t *Thread) error {
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("process %d: enter its mount namespace: %w", p.pid, os.NewSyscallError("setns", err))
		}
		if err := t.CopyMountNamespace(); err != nil {
			return fmt.Errorf("process %d: %w", p.pid, err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("process %d: make the copy of its mounts private: %w", p.pid, os.NewSyscallError("mount", err))
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

// InNamespaceFile is InMountNamespace for a mount namespace that the caller
// has open, such as one that CopyMountNamespace made.
func InNamespaceFile(ctx context.Context, ns *os.File, f func(*Thread) error) error {
	return onOwnThread(ctx, func(t *Thread) error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("enter a copied mount namespace: %w", os.NewSyscallError("setns", err))
		}
		return f(t)
	})
}
