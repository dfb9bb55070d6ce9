package spawn

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Close closes this process to processes with fewer rights: they cannot open its
// program file, its memory or its files by way of /proc, nor trace it (ptrace(2),
// access mode checking). What it starts by clone is born closed; an exec opens
// it again.
func Close() error {
	return os.NewSyscallError("prctl(PR_SET_DUMPABLE)", unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0))
}

// All are all capabilities.
const All = ^uint64(0)

// restrict takes from the calling thread every capability but the given ones, a
// bit for each, and the way to get others by an exec.
func restrict(capabilities uint64) error {
	if capabilities == All {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl(PR_SET_NO_NEW_PRIVS)", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	low, high := uint32(capabilities), uint32(capabilities>>32)
	data := [2]unix.CapUserData{{Effective: low, Permitted: low}, {Effective: high, Permitted: high}}
	_, _, errno := unix.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data)), 0)
	if errno != 0 {
		return os.NewSyscallError("capset", errno)
	}
	return nil
}
