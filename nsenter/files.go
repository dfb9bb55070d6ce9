package nsenter

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
)

// OpenProc opens a file of /proc/<pid> for reading.
func (p *Process) OpenProc(name string) (*os.File, error) {
	return p.openProc(name, unix.O_RDONLY)
}

// OpenFileDescriptor opens the file behind descriptor fd of the process again, if it is
// of the given kind (unix.S_IFIFO and the like): the process decides which file that is,
// and opening a device may have an effect. flags are open(2) flags; close-on-exec is
// always added. For a pipe this gives the end that the access mode asks for, whichever
// end the process has.
func (p *Process) OpenFileDescriptor(fd int, kind uint32, flags int) (*os.File, error) {
	f, err := p.OpenPath("fd/" + strconv.Itoa(fd))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return p.Reopen(f, flags, func(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == kind })
}

// ErrFileKind means that a file is of an unexpected kind.
var ErrFileKind = errors.New("unexpected kind of file")

// Reopen opens a file that was opened with O_PATH for use, if wanted accepts its
// attributes: else the error is ErrFileKind. It works in every mount namespace.
func (p *Process) Reopen(f *os.File, flags int, wanted func(*unix.Stat_t) bool) (*os.File, error) {
	defer runtime.KeepAlive(f)
	st, err := sys.Stat(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	if !wanted(&st) {
		return nil, &os.PathError{Op: "open", Path: f.Name(), Err: ErrFileKind}
	}
	opened, err := sys.OpenAt(p.proc, "../self/fd/"+strconv.Itoa(int(f.Fd())), flags)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return opened, nil
}

func (p *Process) openProc(name string, flags int) (*os.File, error) {
	f, err := sys.OpenAt(p.proc, name, flags)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", p.pid, ended(err))
	}
	return f, nil
}

// OpenPath opens the target of a link of /proc/<pid>, such as "root" or "cwd", with
// O_PATH.
func (p *Process) OpenPath(name string) (*os.File, error) { return p.openProc(name, unix.O_PATH) }
