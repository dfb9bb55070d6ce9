package mounts

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
)

// ErrChanged means that the container changed a mount after the mount table was read.
var ErrChanged = errors.New("the mount changed meanwhile")

// DeviceOf is the st_dev of an autofs mount. (The st_dev of some other file systems,
// such as btrfs, differs from the number in mountinfo.)
func DeviceOf(m *Mount) uint64 { return unix.Mkdev(uint32(m.Major), uint32(m.Minor)) }

// DeviceString writes a device number as mountinfo does: "0:54".
func DeviceString(device uint64) string {
	return fmt.Sprintf("%d:%d", unix.Major(device), unix.Minor(device))
}

// openRoot opens the root of the topmost mount at path in the namespace of the
// calling thread, without following a link and without triggering an automount.
func openRoot(path string) (*os.File, error) {
	return sys.OpenAt2(nil, path, unix.O_PATH|unix.O_NOFOLLOW, unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS)
}

// openMount is openRoot for the mount with the given id (from mountinfo).
func openMount(path string, id int) (*os.File, error) {
	root, err := openRoot(path)
	if err != nil {
		return nil, err
	}
	have, err := MountID(root)
	if err == nil && have != id {
		err = fmt.Errorf("%q: mount %d is there, not %d: %w", path, have, id, ErrChanged)
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	return root, nil
}

// checkDevice compares the open file's st_dev with the expected one.
func checkDevice(f *os.File, path string, device uint64) error {
	st, err := sys.Stat(f)
	if err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	if st.Dev != device {
		return fmt.Errorf("%q: file system %s is mounted there, not %s: %w", path,
			DeviceString(st.Dev), DeviceString(device), ErrChanged)
	}
	return nil
}

// MountID is the mount id, as in mountinfo, of the mount that an open file lies
// on (STATX_MNT_ID, Linux 5.8). It triggers nothing.
func MountID(f *os.File) (int, error) {
	st, err := sys.Statx(f, unix.STATX_MNT_ID)
	if err != nil {
		return 0, fmt.Errorf("mount id of %q: %w", f.Name(), err)
	}
	if st.Mask&unix.STATX_MNT_ID == 0 {
		return 0, fmt.Errorf("mount id of %q: the kernel does not report mount ids; Linux 5.8 or later does", f.Name())
	}
	return int(st.Mnt_id), nil
}
