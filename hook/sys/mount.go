package sys

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// CloneTree makes a detached copy of the mount from the open directory on; with
// AT_RECURSIVE in flags also of the mounts on it.
func CloneTree(dir *os.File, flags uint) (*os.File, error) {
	flags |= unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH
	fd, err := fromFile(dir, func(source int) (int, error) { return unix.OpenTree(source, "", flags) })
	if err != nil {
		return nil, &MountError{Op: "open_tree", Source: nameOf(dir), Flags: uint64(flags), Err: err}
	}
	return os.NewFile(uintptr(fd), dir.Name()), nil
}

// MoveMount attaches a detached mount, or moves an attached one, to a name in the
// directory; "" is the directory itself.
func MoveMount(tree, dir *os.File, name string) error {
	flags := unix.MOVE_MOUNT_F_EMPTY_PATH
	if name == "" {
		flags |= unix.MOVE_MOUNT_T_EMPTY_PATH
	}
	err := OnFile(tree, func(from int) error {
		return OnFile(dir, func(to int) error { return unix.MoveMount(from, "", to, name, flags) })
	})
	return mountError(&MountError{Op: "move_mount", Source: nameOf(tree), Target: targetName(dir, name), Flags: uint64(flags), Err: err})
}

// SetPropagation changes the propagation of the mount whose root is open to MS_SHARED,
// MS_SLAVE, MS_PRIVATE or MS_UNBINDABLE (mount_setattr(2), Linux 5.12).
func SetPropagation(root *os.File, propagation uint64) error {
	err := OnFile(root, func(fd int) error {
		return unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Propagation: propagation})
	})
	return mountError(&MountError{Op: "mount_setattr", Target: nameOf(root), Flags: propagation, Err: err})
}

// DetachAt unmounts the mount at a name in dir lazily. umount2(2) takes only a path, so
// the thread, which must share its working directory with no other, goes to dir first.
func DetachAt(dir *os.File, name string) error {
	const flags = unix.MNT_DETACH | unix.UMOUNT_NOFOLLOW
	if err := OnFile(dir, unix.Fchdir); err != nil {
		return &MountError{Op: "fchdir", Target: nameOf(dir), Err: err}
	}
	err := retry(func() error { return unix.Unmount(name, flags) })
	return mountError(&MountError{Op: "umount2", Target: targetName(dir, name), Flags: flags, Err: err})
}

// Detach unmounts the mount whose root is open, lazily. The working directory of the
// thread, which must share it with no other, is "/" then.
func Detach(root *os.File) error {
	err := DetachAt(root, ".")
	if chdirErr := unix.Chdir("/"); err == nil && chdirErr != nil {
		return &os.PathError{Op: "chdir", Path: "/", Err: chdirErr}
	}
	return err
}

// FSContext configures a new file system (fsopen(2), Linux 5.2).
type FSContext struct {
	file   *os.File
	fstype string
}

// OpenFSContext starts a new file system of the given type.
func OpenFSContext(fstype string) (*FSContext, error) {
	fd, err := Retry(func() (int, error) { return unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC) })
	if err != nil {
		return nil, &MountError{Op: "fsopen", Source: fstype, Err: err}
	}
	return &FSContext{file: os.NewFile(uintptr(fd), fstype), fstype: fstype}, nil
}

// Close frees the context. A file system that is mounted continues to exist.
func (c *FSContext) Close() { c.file.Close() }

// SetString sets a parameter of the file system.
func (c *FSContext) SetString(key, value string) error {
	err := OnFile(c.file, func(fd int) error { return unix.FsconfigSetString(fd, key, value) })
	return c.error("fsconfig", key+"="+value, err)
}

// SetFlag sets a parameter that has no value.
func (c *FSContext) SetFlag(key string) error {
	err := OnFile(c.file, func(fd int) error { return unix.FsconfigSetFlag(fd, key) })
	return c.error("fsconfig", key, err)
}

// Mount creates the superblock and returns the root of a detached mount of it; name is
// the name of that file.
func (c *FSContext) Mount(name string) (*os.File, error) {
	if err := c.Create(); err != nil {
		return nil, err
	}
	return c.Root(name)
}

// Create creates the superblock. It exists as long as the context or a mount of it.
func (c *FSContext) Create() error {
	return c.error("fsconfig", "FSCONFIG_CMD_CREATE", OnFile(c.file, unix.FsconfigCreate))
}

// File returns the context's file, which is the caller's: the context must not be used
// after that.
func (c *FSContext) File() *os.File { return c.file }

// Root returns the root of a detached mount of the created superblock.
func (c *FSContext) Root(name string) (*os.File, error) {
	root, err := fromFile(c.file, func(fd int) (int, error) { return unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, 0) })
	if err != nil {
		return nil, c.error("fsmount", "", err)
	}
	return os.NewFile(uintptr(root), name), nil
}

func (c *FSContext) error(op, parameter string, err error) error {
	if err == nil {
		return nil
	}
	return &MountError{Op: op, Source: c.fstype, Parameter: parameter, Message: c.messages(), Err: err}
}

// messages collects what the kernel wrote into the context: one message for each read,
// "e text\n" for an error, ENODATA at the end (Documentation/filesystems/mount_api.rst).
// The kernel keeps at most eight, for autofs since 6.7.
func (c *FSContext) messages() string {
	var all []string
	buf := make([]byte, 4096)
	for range 8 {
		n, err := Read(c.file, buf)
		if err != nil || n == 0 {
			break
		}
		text := strings.TrimSpace(string(buf[:n]))
		if len(text) > 2 && text[1] == ' ' {
			text = text[2:]
		}
		all = append(all, text)
	}
	return strings.Join(all, "; ")
}

// NewRamfs creates an empty file system and returns the root of a detached mount of it.
func NewRamfs(name string) (*os.File, error) {
	c, err := OpenFSContext("ramfs")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Mount(name)
}
