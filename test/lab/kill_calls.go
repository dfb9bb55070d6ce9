package lab

import (
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// syscallInfo is struct ptrace_syscall_info (linux/ptrace.h), at an entry.
type syscallInfo struct {
	Op           uint8
	_            [3]uint8
	Architecture uint32
	_, _         uint64 // instruction and stack pointer
	Number       uint64
	Args         [6]uint64
}

const getSyscallInfo = 0x420e // PTRACE_GET_SYSCALL_INFO, Linux 5.3

func (s *syscallInfo) read(tid int) (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_PTRACE, getSyscallInfo, uintptr(tid), unsafe.Sizeof(*s), uintptr(unsafe.Pointer(s)), 0, 0)
	if errno != 0 {
		return 0, os.NewSyscallError("ptrace", errno)
	}
	return int(n), nil
}

// always are the calls that have a side effect outside of the process whatever their
// arguments. ptrace is not among them: the program makes thousands of these calls while
// it corrects systemd's numbers, and [TestReexecutedKilled] walks over them.
var always = map[uint64]string{
	unix.SYS_MOUNT: "mount", unix.SYS_UMOUNT2: "umount2", unix.SYS_MOVE_MOUNT: "move_mount",
	unix.SYS_FSMOUNT: "fsmount", unix.SYS_MOUNT_SETATTR: "mount_setattr",
	unix.SYS_SETNS: "setns", unix.SYS_UNSHARE: "unshare",
	unix.SYS_CLONE3: "clone3",
	unix.SYS_EXECVE: "execve", unix.SYS_RENAMEAT: "renameat", unix.SYS_RENAMEAT2: "renameat2",
	unix.SYS_UNLINKAT: "unlinkat", unix.SYS_MKDIRAT: "mkdirat", unix.SYS_SENDMSG: "sendmsg",
	unix.SYS_SENDTO: "sendto", unix.SYS_CONNECT: "connect", unix.SYS_FLOCK: "flock",
	unix.SYS_PIDFD_GETFD: "pidfd_getfd", unix.SYS_PROCESS_VM_WRITEV: "process_vm_writev",
}

// changing returns the name of a call with a side effect outside of the process, "" for
// any other.
func changing(tid int, number uint64, args [6]uint64) string {
	if name := always[number]; name != "" {
		return name
	}
	switch number {
	case unix.SYS_KILL, unix.SYS_PIDFD_SEND_SIGNAL:
		if args[1] != 0 {
			return "kill"
		}
	case unix.SYS_OPEN_TREE:
		if args[2]&unix.OPEN_TREE_CLONE != 0 {
			return "open_tree"
		}
	case unix.SYS_FSCONFIG:
		if args[1] == unix.FSCONFIG_CMD_CREATE {
			return "fsconfig"
		}
	case unix.SYS_IOCTL:
		if args[1]>>8&0xff == 0x93 { // autofs
			return "ioctl"
		}
	case unix.SYS_CLONE:
		if args[0]&unix.CLONE_THREAD == 0 {
			return "clone"
		}
	case unix.SYS_OPENAT:
		if args[2]&unix.O_CREAT != 0 {
			return "openat"
		}
	case unix.SYS_WRITE, unix.SYS_PWRITE64:
		target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", tid, args[0]))
		// Not the Go runtime's own wakeups, and not the log.
		if err == nil && args[0] > uint64(os.Stderr.Fd()) && !strings.HasPrefix(target, "anon_inode:[event") {
			return "write"
		}
	}
	return ""
}
