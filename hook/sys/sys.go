// Package sys wraps the Linux system calls that the standard library lacks and that
// more than one package makes. Each wrapper repeats a call that a signal interrupted,
// opens files close-on-exec, takes the files by *os.File and keeps them open during
// the call. Errors are *os.PathError where a path is involved, [*MountError] for the
// mount API, else *os.SyscallError.
package sys

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Retry repeats a call until it does not fail with EINTR. The Go runtime interrupts
// system calls with signals to preempt goroutines, so this happens at any time.
func Retry[T any](call func() (T, error)) (T, error) {
	for {
		if v, err := call(); !errors.Is(err, unix.EINTR) {
			return v, err
		}
	}
}

// maxRetries bounds how often a call on a file is repeated: a file system in user space
// can answer EINTR each time.
const maxRetries = 128

// retry is Retry for a call on a file, which does not wait.
func retry(call func() error) (err error) {
	for range maxRetries {
		if err = call(); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return err
}

// errNoFile stands for a nil *os.File, whose descriptor -1 would give a puzzling EBADF.
var errNoFile = errors.New("no file given")

// OnFile calls a system call on the descriptor of f. A closed file is os.ErrClosed.
func OnFile(f *os.File, call func(fd int) error) error {
	if f == nil {
		return errNoFile
	}
	defer runtime.KeepAlive(f)
	fd := int(f.Fd())
	if fd < 0 {
		return os.ErrClosed
	}
	return retry(func() error { return call(fd) })
}

// fromFile is OnFile for a call with a result.
func fromFile[T any](f *os.File, call func(fd int) (T, error)) (v T, err error) {
	err = OnFile(f, func(fd int) error {
		v, err = call(fd)
		return err
	})
	return v, err
}

// onPath calls a system call on a path relative to dir, or on an absolute one if dir is
// nil.
func onPath(op string, dir *os.File, name string, call func(dirfd int) error) error {
	var err error
	if dir == nil && filepath.IsAbs(name) {
		err = retry(func() error { return call(unix.AT_FDCWD) })
	} else {
		err = OnFile(dir, call)
	}
	if err != nil {
		return &os.PathError{Op: op, Path: join(dir, name), Err: err}
	}
	return nil
}

// join is the path of a name relative to dir.
func join(dir *os.File, name string) string {
	if dir == nil {
		return name
	}
	return dir.Name() + "/" + strings.TrimPrefix(name, "/")
}
