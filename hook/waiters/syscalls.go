package waiters

import "golang.org/x/sys/unix"

// pathArguments returns which argument of a system call is the path, and which the
// directory of a relative path (-1: the working directory).
func pathArguments(number int) (pathArg, dirArg int, ok bool) {
	switch number {
	case unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_STATX, sysFstatat, unix.SYS_FACCESSAT,
		unix.SYS_FACCESSAT2, unix.SYS_READLINKAT, unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_EXECVEAT,
		unix.SYS_MKDIRAT, unix.SYS_UNLINKAT, unix.SYS_OPEN_TREE, unix.SYS_FCHMODAT, unix.SYS_FCHOWNAT, unix.SYS_UTIMENSAT:
		return 1, 0, true
	case unix.SYS_CHDIR, unix.SYS_STATFS, unix.SYS_EXECVE, unix.SYS_TRUNCATE, unix.SYS_CHROOT, unix.SYS_UMOUNT2,
		unix.SYS_GETXATTR, unix.SYS_LGETXATTR:
		return 0, -1, true
	}
	return legacyPathArguments(number)
}
