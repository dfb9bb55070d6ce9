//go:build linux

package autofs

import (
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The functions below are the older ioctls, on the root of a mount. Unlike the
// ones of /dev/autofs they do not ask for the master's process group:
// CAP_SYS_ADMIN in the initial user namespace is enough (EPERM without). root
// must be a real descriptor; see [Reopen].

// Ready answers a request of the kernel: the processes that wait for token walk
// on into what is mounted there now, or ask again if nothing is. An unknown
// token is EINVAL. Source: autofs_wait_release(), fs/autofs/waitq.c.
func Ready(root *os.File, token uint32) error {
	return ioctlError("AUTOFS_IOC_READY", ioctlValue(root, iocReady, uintptr(token)))
}

// Catatonic switches the mount off: every process that waits on it gets ENOENT
// (before Linux 6.6 only [Release] does that), and the kernel closes its end of
// the pipe. It cannot be undone by this package. A second call is no error. Close the pipe's last other writer only
// afterwards: a master that sees a hang-up gives the mount up.
func Catatonic(root *os.File) error {
	return ioctlError("AUTOFS_IOC_CATATONIC", ioctlValue(root, iocCatatonic, 0))
}

// SetTimeout sets the idle time after which the mount may expire, in whole
// seconds (a part of a second is rounded up, for 0 would mean never). A negative
// one is EINVAL.
func SetTimeout(root *os.File, d time.Duration) error {
	if d < 0 {
		return fmt.Errorf("autofs: timeout %v: %w", d, unix.EINVAL)
	}
	var seconds uintptr
	if d > 0 {
		seconds = uintptr((d-1)/time.Second + 1)
	}
	// The kernel writes the previous value back into the same word.
	return ioctlError("AUTOFS_IOC_SETTIMEOUT", ioctlPointer(root, iocSetTimeout, unsafe.Pointer(&seconds)))
}
