//go:build linux

package autofs

import (
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The functions below are the older ioctls, on the root of a mount. Unlike those of
// /dev/autofs they do not require the master's process group: CAP_SYS_ADMIN in the
// initial user namespace is enough (EPERM without). root must not be an O_PATH
// descriptor; see [Reopen].

// Ready answers a request of the kernel: the processes that wait for token continue into
// the mount on the root, or send another request if there is none. An unknown token is
// EINVAL (autofs_wait_release(), fs/autofs/waitq.c).
func Ready(root *os.File, token uint32) error {
	return ioctlError("AUTOFS_IOC_READY", ioctlValue(root, iocReady, uintptr(token)))
}

// Catatonic makes the mount catatonic: all processes that wait on it get ENOENT (before
// Linux 6.6 only [Release] does that), and the kernel closes its end of the pipe. A second
// call is no error. Close the last other writer of the pipe only afterwards: a master that
// sees a hang-up gives the mount up.
func Catatonic(root *os.File) error {
	return ioctlError("AUTOFS_IOC_CATATONIC", ioctlValue(root, iocCatatonic, 0))
}

// SetTimeout sets the idle time after which the mount may expire, in whole seconds,
// rounded up because 0 means never. A negative time is EINVAL.
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
