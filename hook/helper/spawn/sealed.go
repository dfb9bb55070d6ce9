package spawn

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// memoryName is what /proc/PID/exe of a sealed copy shows, after "/memfd:".
const memoryName = "autofs-restore-hook"

// sealedCopy copies this program to a memfd that no process can write to.
func sealedCopy() (*os.File, error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	defer self.Close()
	f, err := sys.Memfd(memoryName, unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // Linux before 6.3, where every memfd is executable
		f, err = sys.Memfd(memoryName, unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() // the writable descriptor; the returned one is read-only
	if err = copyFile(f, self); err == nil {
		const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		return nil, fmt.Errorf("sealed copy of this program: %w", err)
	}
	return os.Open("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
}

// copyFile copies with sendfile(2): io.Copy makes 270 system calls for this program.
func copyFile(to, from *os.File) error {
	for {
		n, err := sys.Retry(func() (int, error) { return unix.Sendfile(int(to.Fd()), int(from.Fd()), nil, 1<<30) })
		if n == 0 || err != nil {
			return os.NewSyscallError("sendfile", err)
		}
	}
}

// Seal executes a sealed copy of this program, from its start, if processes of the given
// container may open any process in their pid namespace (CAP_SYS_PTRACE without a user
// namespace of their own). This program puts a process there for a short time; through it
// they could open the program file of the host, and write to that file after the process
// has ended (CVE-2019-5736). input is the copy's standard input, nil for the current one.
//
// It returns if no copy is needed, or with an error.
func Seal(pid int, input []byte) error {
	if Sealed() {
		return nameThreads()
	}
	if !opensAll(pid) {
		return nil
	}
	program, err := sealedCopy()
	if err != nil {
		return err
	}
	defer program.Close()
	if input != nil {
		f, err := sys.Memfd("standard input", 0)
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
	if err := os.Setenv(tookVariable, time.Since(started).String()); err != nil {
		return err
	}
	err = syscall.Exec("/proc/self/fd/"+strconv.Itoa(int(program.Fd())), os.Args, os.Environ())
	return os.NewSyscallError("execve", err)
}

// tookVariable is the environment variable with what Took returns.
const tookVariable = "AUTOFS_RESTORE_HOOK_TOOK"

var started = time.Now()

// Took returns how long the run had taken when it executed a sealed copy, which continues it;
// 0 if it has not.
func Took() time.Duration {
	took, err := time.ParseDuration(os.Getenv(tookVariable))
	if err != nil || !Sealed() {
		return 0
	}
	return took
}

// Sealed reports whether this process runs a sealed copy.
func Sealed() bool {
	link, err := os.Readlink("/proc/self/exe")
	return err == nil && strings.HasPrefix(link, "/memfd:")
}

// nameThreads gives the threads of a sealed copy their usual name: the kernel named them
// after the descriptor that was executed.
func nameThreads() error {
	const tasks = "/proc/self/task/"
	list, err := os.ReadDir(tasks)
	for _, t := range list {
		// A thread may end meanwhile; a name is not worth an error.
		_ = os.WriteFile(tasks+t.Name()+"/comm", []byte(memoryName), 0) //nolint:forbidigo // a file of procfs
	}
	return err
}

// opensAll reports whether a container's processes may have CAP_SYS_PTRACE.
func opensAll(pid int) bool {
	p, err := nsenter.Open(pid)
	if err != nil {
		return false // later steps report the error
	}
	defer p.Close()
	bounds, _ := p.Capabilities("CapBnd")
	return bounds&(1<<unix.CAP_SYS_PTRACE) != 0
}
