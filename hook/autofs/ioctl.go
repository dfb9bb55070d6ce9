//go:build linux

package autofs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
)

// The generic encoding of ioctl numbers (include/uapi/asm-generic/ioctl.h), as
// on amd64 and arm64. alpha, mips, powerpc and sparc have their own.
const (
	iocNone  = 0
	iocWrite = 1
	iocRead  = 2

	iocType = 0x93 // AUTOFS_IOCTL
)

func ioc(direction, number, size uint) uint {
	return direction<<30 | size<<16 | iocType<<8 | number
}

// Ioctls on the root of a mount, include/uapi/linux/auto_fs.h. They need the
// master's process group or CAP_SYS_ADMIN in the initial user namespace
// (autofs_root_ioctl_unlocked(), fs/autofs/root.c).
var (
	iocReady      = ioc(iocNone, 0x60, 0)
	iocFail       = ioc(iocNone, 0x61, 0)
	iocCatatonic  = ioc(iocNone, 0x62, 0)
	iocSetTimeout = ioc(iocRead|iocWrite, 0x64, uint(unsafe.Sizeof(uintptr(0))))
)

// Ioctls on /dev/autofs, include/uapi/linux/auto_dev-ioctl.h.
var (
	iocDevOpenMount = ioc(iocRead|iocWrite, 0x74, requestSize)
	iocDevFail      = ioc(iocRead|iocWrite, 0x77, requestSize)
)

// struct autofs_dev_ioctl: four 32-bit words, a union of 8 bytes, the path.
const (
	requestSize     = 24
	offsetVerMajor  = 0
	offsetVerMinor  = 4
	offsetSize      = 8
	offsetIoctlFD   = 12
	offsetArgument  = 16
	protocolMajor   = 1
	protocolMinor   = 0 // the kernel refuses a minor above its own, and 0 has all we use
	maxRequestExtra = unix.PathMax
)

// request is one struct autofs_dev_ioctl in the machine's byte order.
type request []byte

// newRequest encodes a request without argument; path may be empty. It returns the errors
// that the kernel would return.
func newRequest(ioctlfd int, path string) (request, error) {
	size := requestSize
	if path != "" {
		if strings.IndexByte(path, 0) >= 0 || !strings.Contains(path, "/") {
			return nil, fmt.Errorf("path %q: %w", path, unix.EINVAL)
		}
		if len(path)+1 > maxRequestExtra {
			return nil, fmt.Errorf("path of %d bytes: %w", len(path), unix.ENAMETOOLONG)
		}
		size += len(path) + 1
	}
	r := make(request, size)
	r.put(offsetVerMajor, protocolMajor)
	r.put(offsetVerMinor, protocolMinor)
	r.put(offsetSize, uint32(size))
	r.put(offsetIoctlFD, uint32(int32(ioctlfd)))
	copy(r[requestSize:], path)
	return r, nil
}

func (r request) put(offset int, v uint32) { binary.NativeEndian.PutUint32(r[offset:], v) }
func (r request) ioctlFD() int {
	return int(int32(binary.NativeEndian.Uint32(r[offsetIoctlFD:])))
}

// ioctlPointer calls an ioctl whose argument is a pointer.
func ioctlPointer(f *os.File, number uint, arg unsafe.Pointer) error {
	return sys.OnFile(f, func(fd int) error {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(number), uintptr(arg))
		return errnoError(errno)
	})
}

// ioctlValue calls an ioctl whose argument is a number.
func ioctlValue(f *os.File, number uint, arg uintptr) error {
	return sys.OnFile(f, func(fd int) error {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(number), arg)
		return errnoError(errno)
	})
}

func errnoError(errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

// ioctlError names the ioctl, and explains EBADF.
func ioctlError(name string, err error) error {
	if err == nil {
		return nil
	}
	err = os.NewSyscallError("ioctl "+name, err)
	if errors.Is(err, unix.EBADF) {
		return fmt.Errorf("%w (an O_PATH descriptor must be reopened first)", err)
	}
	return err
}
