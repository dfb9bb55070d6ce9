package nsenter

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// OpenProc opens a file of /proc/<pid> for reading.
func (p *Process) OpenProc(name string) (*os.File, error) {
	return p.openProc(name, unix.O_RDONLY)
}

// OpenFileDescriptor opens anew the file that the process has as descriptor
// fd, if it is of the given kind (unix.S_IFIFO and the like): the process decides
// what is there, and to open a device may do something. flags are open(2) flags;
// close-on-exec is always added. For a pipe this gives the end that the access
// mode asks for, whichever end the process has.
func (p *Process) OpenFileDescriptor(fd int, kind uint32, flags int) (*os.File, error) {
	name := "fd/" + strconv.Itoa(fd)
	path := "/proc/" + strconv.Itoa(p.pid) + "/" + name
	look, err := retryEINTR(func() (int, error) {
		return unix.Openat(int(p.proc.Fd()), name, unix.O_PATH|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", p.pid, ended(&os.PathError{Op: "open", Path: path, Err: err}))
	}
	defer unix.Close(look)
	return p.reopen(look, path, flags, func(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == kind })
}

// ErrFileKind means that a file is not what it should be.
var ErrFileKind = errors.New("it is another kind of file")

// Reopen opens a file for use that was opened to look at it (O_PATH), if it is
// what is wanted: else the error is ErrFileKind. It works in every mount
// namespace.
func (p *Process) Reopen(f *os.File, flags int, wanted func(*unix.Stat_t) bool) (*os.File, error) {
	defer runtime.KeepAlive(f)
	return p.reopen(int(f.Fd()), f.Name(), flags, wanted)
}

func (p *Process) reopen(look int, path string, flags int, wanted func(*unix.Stat_t) bool) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(look, &st); err != nil {
		return nil, &os.PathError{Op: "fstat", Path: path, Err: err}
	}
	if !wanted(&st) {
		return nil, &os.PathError{Op: "open", Path: path, Err: ErrFileKind}
	}
	fd, err := retryEINTR(func() (int, error) {
		return unix.Openat(int(p.proc.Fd()), "../self/fd/"+strconv.Itoa(look), flags|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

func (p *Process) openProc(name string, flags int) (*os.File, error) {
	path := "/proc/" + strconv.Itoa(p.pid) + "/" + name
	fd, err := retryEINTR(func() (int, error) {
		return unix.Openat(int(p.proc.Fd()), name, flags|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", p.pid, ended(&os.PathError{Op: "open", Path: path, Err: err}))
	}
	return os.NewFile(uintptr(fd), path), nil
}

// OpenExecutable opens the program file that the process runs, to look at it
// (O_PATH).
func (p *Process) OpenExecutable() (*os.File, error) { return p.OpenPath("exe") }

// OpenPath opens what a link of /proc/<pid> leads to, such as "root" or "cwd",
// without reading from it (O_PATH).
func (p *Process) OpenPath(name string) (*os.File, error) { return p.openProc(name, unix.O_PATH) }
