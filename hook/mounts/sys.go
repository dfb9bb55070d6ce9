package mounts

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrChanged means that a mount is not the one it was when we looked: the
// container changed it meanwhile.
var ErrChanged = errors.New("the mount changed meanwhile")

// DeviceOf is the number that stat(2) reports as st_dev for an autofs mount.
// (For some other file systems, such as btrfs, st_dev differs from it.)
func DeviceOf(m *Mount) uint64 { return unix.Mkdev(uint32(m.Major), uint32(m.Minor)) }

// DeviceString writes a device number as mountinfo does: "0:54".
func DeviceString(device uint64) string {
	return fmt.Sprintf("%d:%d", unix.Major(device), unix.Minor(device))
}

// openRoot opens the root of the topmost mount at path in the namespace of the
// calling thread, without following a link and without triggering an automount.
func openRoot(path string) (*os.File, error) {
	for {
		fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{
			Flags:   unix.O_PATH | unix.O_CLOEXEC | unix.O_NOFOLLOW,
			Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
		})
		// EAGAIN: something was renamed or mounted during the walk (openat2(2)).
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			continue
		}
		if err != nil {
			return nil, mountError("open", path, "openat2", err)
		}
		return os.NewFile(uintptr(fd), path), nil
	}
}

// checkDevice compares the open file's st_dev with the expected one.
func checkDevice(f *os.File, path string, device uint64) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return mountError("look at", path, "fstat", err)
	}
	if st.Dev != device {
		return fmt.Errorf("%q: file system %s is there, not %s: %w", path,
			DeviceString(st.Dev), DeviceString(device), ErrChanged)
	}
	return nil
}

// MountID is the mount id, as in mountinfo, of the mount that an open file lies
// on (STATX_MNT_ID, Linux 5.8). It triggers nothing.
func MountID(f *os.File) (int, error) {
	var st unix.Statx_t
	err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &st)
	if err != nil {
		return 0, mountError("look at", f.Name(), "statx", err)
	}
	if st.Mask&unix.STATX_MNT_ID == 0 {
		return 0, fmt.Errorf("look at %q: the kernel does not report mount ids (Linux 5.8 does)", f.Name())
	}
	return int(st.Mnt_id), nil
}

// checkID compares the mount id of an open file with the expected one.
func checkID(f *os.File, path string, id int) error {
	have, err := MountID(f)
	if err != nil {
		return err
	}
	if have != id {
		return fmt.Errorf("%q: mount %d is there, not %d: %w", path, have, id, ErrChanged)
	}
	return nil
}

// detach unmounts (MNT_DETACH) the mount whose root is open. umount2(2) takes
// only a path, so the thread, which shares its working directory with no other,
// goes there first.
func detach(root *os.File, path string) error {
	if err := unix.Fchdir(int(root.Fd())); err != nil {
		return mountError("detach", path, "fchdir", err)
	}
	err := unix.Unmount(".", unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if cdErr := unix.Chdir("/"); err == nil {
		err = cdErr
	}
	return mountError("detach", path, "umount2", err)
}

// attach mounts a detached tree on the root of another mount.
func attach(tree, target *os.File, path string) error {
	err := unix.MoveMount(int(tree.Fd()), "", int(target.Fd()), "",
		unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	return mountError("mount", path, "move_mount", err)
}

func mountError(what, path, call string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %q: %w", what, path, os.NewSyscallError(call, err))
}
