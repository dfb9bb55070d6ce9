package master

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// errNotState means that a file is not the one that systemd writes its state to.
var errNotState = errors.New("it is not a memfd that its process may write to")

// isState reports whether the descriptor is systemd's state.
func isState(p *nsenter.Process, fd int) bool {
	f, err := openState(p, fd)
	if err == nil {
		f.Close()
	}
	return err == nil
}

// openState returns the process's own open file, if it is systemd's state.
//
// The link's text alone proves nothing: a container can have a file of the path
// "/memfd:systemd-state (deleted)", such as one of the host that it may only
// read. So the file has to lie on the file system that is the kernel's own for
// memfds (mm/shmem.c, shm_mnt): nothing on it has a path, and the kernel gives
// the names. And it is written with the access that the process itself has, not
// opened again with the access of this program. It shares its offset with that
// process: use only ReadAt and WriteAt.
func openState(p *nsenter.Process, fd int) (*os.File, error) {
	link, err := p.Readlink("fd/" + strconv.Itoa(fd))
	if err != nil {
		return nil, err
	}
	if link != stateName {
		return nil, errNotState
	}
	own, err := unix.PidfdGetfd(int(p.Pidfd().Fd()), fd, 0)
	if err != nil {
		return nil, fmt.Errorf("process %d: copy descriptor %d: %w", p.PID(), fd, os.NewSyscallError("pidfd_getfd", err))
	}
	f := os.NewFile(uintptr(own), stateName)
	err = checkState(own)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("process %d: descriptor %d: %w", p.PID(), fd, err)
	}
	return f, nil
}

func checkState(fd int) error {
	mode, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	device, err := memfdDevice()
	if err != nil {
		return err
	}
	if st.Dev != device || mode&unix.O_ACCMODE != unix.O_RDWR {
		return errNotState
	}
	return nil
}

// memfdDevice is the st_dev of all memfds of this machine but those of huge pages.
func memfdDevice() (uint64, error) {
	fd, err := unix.MemfdCreate("autofs-restore-hook", unix.MFD_CLOEXEC)
	if err != nil {
		return 0, os.NewSyscallError("memfd_create", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, os.NewSyscallError("fstat", err)
	}
	return st.Dev, nil
}
