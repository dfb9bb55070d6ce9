package systemd

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// errNotState means that a file is not the memfd that systemd writes its state to.
var errNotState = errors.New("it is not a memfd that its process may write to")

// isState reports whether the descriptor is systemd's state.
func isState(p *nsenter.Process, fd int) bool {
	f, err := openState(p, fd)
	if err == nil {
		f.Close()
	}
	return err == nil
}

// openState returns a copy of the process's descriptor, if it is systemd's state.
//
// The text of the link proves nothing: a container can have a file with the path
// "/memfd:systemd-state (deleted)", such as one of the host that it may only
// read. So the file must be on the kernel's internal file system for memfds
// (mm/shmem.c, shm_mnt), where no file has a path and the kernel makes the names. And
// the copy has the access mode of the process, not of this program. It shares its offset
// with that process: use only ReadAt and WriteAt.
func openState(p *nsenter.Process, fd int) (*os.File, error) {
	link, err := p.Readlink("fd/" + strconv.Itoa(fd))
	if err != nil {
		return nil, err
	}
	if link != stateName {
		return nil, errNotState
	}
	own, err := sys.PidfdGetfd(p.Pidfd(), fd)
	if err != nil {
		return nil, fmt.Errorf("process %d: copy descriptor %d: %w", p.PID(), fd, err)
	}
	f := os.NewFile(uintptr(own), stateName)
	if err := checkState(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("process %d: descriptor %d: %w", p.PID(), fd, err)
	}
	return f, nil
}

func checkState(f *os.File) error {
	mode, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	st, err := sys.Stat(f)
	if err != nil {
		return err
	}
	memfd, err := memfdDevice()
	if err != nil {
		return err
	}
	if st.Dev != memfd || mode&unix.O_ACCMODE != unix.O_RDWR {
		return errNotState
	}
	return nil
}

// memfdDevice is the st_dev of all memfds of this machine except those of huge pages.
func memfdDevice() (uint64, error) {
	f, err := sys.Memfd("autofs-restore-hook", 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	st, err := sys.Stat(f)
	return st.Dev, err
}
