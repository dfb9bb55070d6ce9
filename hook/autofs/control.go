//go:build linux

package autofs

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
)

// ControlPath is the device for the ioctls of a master.
const ControlPath = "/dev/autofs"

// Its device number: AUTOFS_MINOR of include/linux/miscdevice.h.
const (
	controlMajor = 10
	controlMinor = 235
)

// IsControl reports whether a file with these attributes is the control device, whatever
// its path.
func IsControl(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && uint64(st.Rdev) == unix.Mkdev(controlMajor, controlMinor) //nolint:unconvert // 32 bits on some architectures
}

// Control is an open /dev/autofs. It is not bound to the mount namespace in
// which it was opened: open it on the host, then enter the container's.
type Control struct{ file *os.File }

// OpenControl opens /dev/autofs in the current mount namespace, close-on-exec.
// ENOENT means that the device is missing, ENXIO or ENODEV that the kernel has
// no autofs. In a container the path may be any file, so it is opened without following
// links or blocking, and refused unless it is device 10:235.
func OpenControl() (*Control, error) {
	f, err := os.OpenFile(ControlPath, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("open the autofs control device: %w", err)
	}
	st, err := sys.Stat(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", ControlPath, err)
	}
	if !IsControl(&st) {
		f.Close()
		return nil, &os.PathError{Op: "open", Path: ControlPath, Err: fmt.Errorf(
			"not the character device %d:%d: %w", controlMajor, controlMinor, unix.ENODEV)}
	}
	return &Control{file: f}, nil
}

// Close closes the device.
func (c *Control) Close() error { return c.file.Close() }

// OpenMount opens the root of the autofs mount with device number dev (st_dev)
// at path, however many mounts cover it, for ioctls. ENOENT: no autofs with that
// number is mounted there. EPERM: no CAP_SYS_ADMIN in the initial user
// namespace.
//
// The path is walked in the caller's mount namespace and root, without
// triggering a mount; but if a process already waits on a direct or offset mount
// there, this waits with it, unless the caller's pid namespace is outside the
// master's (then it is ENOENT). Prefer descriptors taken before tasks run.
//
// The kernel makes it close-on-exec itself (autofs_dev_ioctl_open_mountpoint(),
// fs/autofs/dev-ioctl.c).
func (c *Control) OpenMount(path string, dev uint64) (*os.File, error) {
	fail := func(err error) (*os.File, error) {
		return nil, fmt.Errorf("open autofs mount %d:%d at %q: %w", unix.Major(dev), unix.Minor(dev), path,
			ioctlError("AUTOFS_DEV_IOCTL_OPENMOUNT", err))
	}
	r, err := newOpenRequest(path, dev)
	if err != nil {
		return fail(err)
	}
	if err := c.do(iocDevOpenMount, r); err != nil {
		return fail(err)
	}
	fd := r.ioctlFD()
	if fd < 0 {
		return fail(unix.EBADF)
	}
	return os.NewFile(uintptr(fd), path), nil
}

func newOpenRequest(path string, dev uint64) (request, error) {
	if path == "" || path[0] != '/' {
		return nil, unix.EINVAL
	}
	r, err := newRequest(-1, path)
	if err == nil {
		r.put(offsetArgument, encodeDevice(dev))
	}
	return r, err
}

// OpenRequest returns the number and the argument of the ioctl of [Control.OpenMount], for
// injection into another process. OpenedFile reads the descriptor from the argument
// afterwards.
func OpenRequest(path string, dev uint64) (number uint, argument []byte, err error) {
	r, err := newOpenRequest(path, dev)
	return iocDevOpenMount, r, err
}

// OpenedFile returns the descriptor in the argument of a completed OpenRequest.
func OpenedFile(argument []byte) int { return request(argument).ioctlFD() }

// Fail answers a request with an error, which the system calls of all processes that wait
// for the token return. ESTALE is special: the kernel repeats the lookup of the whole path
// (retry_estale(), include/linux/namei.h). Only the master's process group may do this
// (EACCES otherwise). An unknown token is EINVAL.
func (c *Control) Fail(root *os.File, token uint32, errno unix.Errno) error {
	err := sys.OnFile(root, func(fd int) error {
		r, err := newRequest(fd, "")
		if err != nil {
			return err
		}
		r.put(offsetArgument, token)
		r.put(offsetArgument+4, uint32(-int32(errno)))
		return c.do(iocDevFail, r)
	})
	return ioctlError("AUTOFS_DEV_IOCTL_FAIL", err)
}

func (c *Control) do(number uint, r request) error {
	return ioctlPointer(c.file, number, unsafe.Pointer(&r[0]))
}
