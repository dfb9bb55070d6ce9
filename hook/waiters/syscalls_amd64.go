package waiters

import "golang.org/x/sys/unix"

const sysFstatat = unix.SYS_NEWFSTATAT

// legacyPathArguments is pathArguments for the system calls that only older architectures
// have.
func legacyPathArguments(number int) (pathArg, dirArg int, ok bool) {
	switch number {
	case unix.SYS_OPEN, unix.SYS_STAT, unix.SYS_LSTAT, unix.SYS_ACCESS, unix.SYS_READLINK, unix.SYS_MKDIR,
		unix.SYS_RMDIR, unix.SYS_UNLINK, unix.SYS_CHMOD, unix.SYS_CHOWN:
		return 0, -1, true
	}
	return 0, 0, false
}
