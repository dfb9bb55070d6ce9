package spawn

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// wipeEnvironment overwrites what /proc/PID/environ shows: to processes with
// CAP_SYS_ADMIN, as every container with autofs mounts has it, that is open in
// processes that are not dumpable, too (kernel/fork.c, may_access_mm, Linux
// 6.18). This program has copies of its variables.
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

// Close closes this process to processes with fewer rights: they cannot open its
// program file, its memory or its files by way of /proc, nor trace it (ptrace(2),
// access mode checking). What it starts by clone is born closed; an exec opens
// it again.
func Close() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl(PR_SET_DUMPABLE)", err)
	}
	return wipeEnvironment()
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
