package spawn

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// memoryName is what /proc/PID/exe of a sealed copy shows, after "/memfd:".
const memoryName = "autofs-restore-hook"

// SealedCopy copies this program into memory that no process can write to.
func SealedCopy() (*os.File, error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	defer self.Close()
	f, err := memory(unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) {
		f, err = memory(0) // Linux before 6.3, where all can be executed
	}
	if err != nil {
		return nil, err
	}
	// A descriptor that cannot write is returned: the one that could is closed.
	defer f.Close()
	if err = copyFile(f, self); err == nil {
		const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		return nil, fmt.Errorf("sealed copy of this program: %w", err)
	}
	return os.Open("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
}

// copyFile copies within the kernel: io.Copy takes 270 calls for this program.
func copyFile(to, from *os.File) error {
	for {
		n, err := unix.Sendfile(int(to.Fd()), int(from.Fd()), nil, 1<<30)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return os.NewSyscallError("sendfile", err)
		case n == 0:
			return nil
		}
	}
}

func memory(flags int) (*os.File, error) {
	fd, err := unix.MemfdCreate(memoryName, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|flags)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return os.NewFile(uintptr(fd), memoryName), nil
}

// Seal has this program go on, from its start, as a sealed copy of itself, if
// processes of the given container may open any process that is in their pid
// namespace (CAP_SYS_PTRACE without a user namespace of their own). A process of
// ours is there for a moment, and with the program file of the host open they
// could write to it when we have ended (CVE-2019-5736). input is what the copy
// finds on standard input, nil for what is there now.
//
// It returns if there is nothing to do, or with an error.
func Seal(pid int, input []byte) error {
	if Sealed() {
		return nameThreads()
	}
	if !opensAll(pid) {
		return nil
	}
	program, err := SealedCopy()
	if err != nil {
		return err
	}
	defer program.Close()
	if input != nil {
		f, err := memory(0)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.WriteAt(input, 0); err != nil {
			return err
		}
		if err := unix.Dup3(int(f.Fd()), 0, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	err = syscall.Exec("/proc/self/fd/"+strconv.Itoa(int(program.Fd())), os.Args, os.Environ())
	return os.NewSyscallError("execve", err)
}

// Sealed reports whether this process runs a sealed copy.
func Sealed() bool {
	link, err := os.Readlink("/proc/self/exe")
	return err == nil && strings.HasPrefix(link, "/memfd:")
}

// nameThreads calls the threads of a sealed copy what they are called else: the
// kernel has named them after the number of the file that was executed.
func nameThreads() error {
	const tasks = "/proc/self/task/"
	list, err := os.ReadDir(tasks)
	for _, t := range list {
		// A thread may end meanwhile; a name is not worth an error.
		_ = os.WriteFile(tasks+t.Name()+"/comm", []byte(memoryName), 0) //nolint:forbidigo // the kernel's own
	}
	return err
}

// opensAll reports whether a container's processes may have CAP_SYS_PTRACE.
func opensAll(pid int) bool {
	p, err := nsenter.Open(pid)
	if err != nil {
		return false // the next one to work on it will say so
	}
	defer p.Close()
	value, _ := p.Status("CapBnd")
	bounds, _ := strconv.ParseUint(value, 16, 64)
	return bounds&(1<<unix.CAP_SYS_PTRACE) != 0
}
