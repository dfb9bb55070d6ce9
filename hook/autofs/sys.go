//go:build linux

package autofs

import (
	"errors"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// errNilFile is for a caller that lost its descriptor; without it a nil
// *os.File would become descriptor -1 and the error a puzzling EBADF.
var errNilFile = errors.New("no file given")

// retry repeats a system call that a signal interrupted. The Go runtime sends
// itself signals to preempt goroutines, so this happens by itself.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// onFile runs one system call on the descriptor of f and keeps f open meanwhile.
func onFile(f *os.File, call func(fd int) error) error {
	if f == nil {
		return errNilFile
	}
	defer runtime.KeepAlive(f)
	fd := int(f.Fd())
	if fd < 0 {
		return os.ErrClosed
	}
	return retry(func() error { return call(fd) })
}

// Reopen turns an O_PATH descriptor on an autofs root, or a detached mount from
// [Create], into a real one (O_RDONLY, close-on-exec), which ioctls need.
//
// It opens "." relative to the descriptor. The kernel takes "." as it is: it
// neither crosses onto a covering mount nor asks the master (handle_dots() in
// fs/namei.c; measured on 6.18, also while processes are blocked on the mount),
// and unlike /proc/self/fd it needs no procfs, which inside a container is the
// container's. O_DIRECTORY would trigger a mount, so it is left out. The error
// is an *os.PathError.
func Reopen(opath *os.File) (*os.File, error) {
	var fd int
	err := onFile(opath, func(dir int) (err error) {
		fd, err = unix.Openat(dir, ".", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		return err
	})
	if err != nil {
		name := ""
		if opath != nil {
			name = opath.Name()
		}
		return nil, &os.PathError{Op: "reopen", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), opath.Name()), nil
}

// IsAutofs tells whether f is open on an autofs (AUTOFS_SUPER_MAGIC of
// include/uapi/linux/magic.h). It never triggers a mount and never waits.
func IsAutofs(f *os.File) (bool, error) {
	var st unix.Statfs_t
	err := onFile(f, func(fd int) error { return unix.Fstatfs(fd, &st) })
	if err != nil {
		return false, os.NewSyscallError("fstatfs", err)
	}
	return st.Type == unix.AUTOFS_SUPER_MAGIC, nil
}
