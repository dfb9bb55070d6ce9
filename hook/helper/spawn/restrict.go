package spawn

import (
	"bytes"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
)

// wipeEnvironment overwrites the memory that /proc/PID/environ shows. Processes with
// CAP_SYS_ADMIN, which every container with autofs mounts has, can read it even in
// processes that are not dumpable (kernel/fork.c, may_access_mm, Linux 6.18). The Go
// runtime has copies of the variables.
func wipeEnvironment() error {
	data, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return err
	}
	const envStart, envEnd = 50 - 3, 51 - 3 // proc(5), from the field after the name on
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) <= envEnd {
		return nil
	}
	start, _ := strconv.ParseInt(fields[envStart], 10, 64)
	end, _ := strconv.ParseInt(fields[envEnd], 10, 64)
	f, err := os.OpenFile("/proc/self/mem", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(make([]byte, max(end-start, 0)), start)
	return err
}

// SetUndumpable clears the dumpable flag of this process (prctl(2)) and wipes its environment, so
// that processes without CAP_SYS_PTRACE can neither trace it nor read its memory, its
// files or its program file through /proc (ptrace(2), access mode checking). clone(2)
// preserves the flag; execve(2) resets it.
func SetUndumpable() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl(PR_SET_DUMPABLE)", err)
	}
	return wipeEnvironment()
}

// AllCapabilities is the set of all capabilities.
const AllCapabilities = ^uint64(0)

// restrict drops all capabilities of the calling thread except the given ones, one bit
// for each, and prevents it from gaining others by an exec.
func restrict(capabilities uint64) error {
	if capabilities == AllCapabilities {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl(PR_SET_NO_NEW_PRIVS)", err)
	}
	return sys.NewCapset(capabilities).Set()
}
