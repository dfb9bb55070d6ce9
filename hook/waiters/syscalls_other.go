//go:build !amd64

package waiters

import "golang.org/x/sys/unix"

const sysFstatat = unix.SYS_FSTATAT

// legacyPathArguments: newer architectures have the *at system calls only.
func legacyPathArguments(int) (pathArg, dirArg int, ok bool) { return 0, 0, false }
