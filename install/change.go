package install

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// change is a file to be written or to be removed.
type change struct {
	path   string
	before *file // nil: there is none
	after  []byte
	remove bool
	// unless, if not nil, is asked right before: whether it is left undone.
	unless  func() bool
	skipped bool
	mode    uint32 // of a new file; an old one gets its right to be executed

	dir               *os.File
	above, base       string // its folder and name
	temporary, backup string
	done              bool
}

// Temporary files have names that no engine reads.
const (
	temporaryPrefix = "." + programName + "-"
	temporarySuffix = ".tmp"
)

// transaction carries out changes: all, or none.
type transaction struct {
	tree    *tree
	changes []*change
	folders []string // made
	// check, if not nil, is called before the file of that name is changed, or at
	// the end; its error undoes all.
	check  func() error
	before string
}

// apply makes the folders, writes all new files next to their places, and then
// renames them, in the given order.
func (x *transaction) apply(folders []string) (err error) {
	defer func() {
		if err != nil {
			x.undo()
		}
		x.cleanUp()
	}()
	for _, name := range folders {
		if err := x.tree.makeFolder(name); err != nil {
			return err
		}
		x.folders = append(x.folders, name)
	}
	for _, c := range x.changes {
		c.above, c.base = split(c.path)
		if c.dir, err = x.tree.open(c.above, os.O_RDONLY|unix.O_DIRECTORY); err != nil {
			return err
		}
		removeTemporary(c.dir) // of runs that were killed
	}
	for i, c := range x.changes {
		if err := c.stage(i); err != nil {
			return fmt.Errorf("%s: %w; the files are as before", x.tree.show(c.path), err)
		}
	}
	for _, c := range x.changes {
		if c.path == x.before {
			if err := x.checkOnce(); err != nil {
				return err
			}
		}
		if c.skipped = c.unless != nil && c.unless(); c.skipped {
			continue
		}
		if err := c.commit(); err != nil {
			return fmt.Errorf("%s: %w; the files are as before", x.tree.show(c.path), err)
		}
	}
	return x.checkOnce()
}

func (x *transaction) checkOnce() error {
	check := x.check
	x.check = nil
	if check == nil {
		return nil
	}
	return check()
}

// stage writes the new file under another name. What is still missing then is
// only renamed, so a full disk is noticed here.
func (c *change) stage(number int) error {
	name := fmt.Sprintf("%s%d-%d", temporaryPrefix, os.Getpid(), number)
	c.backup = name + "-old" + temporarySuffix
	if c.remove {
		return nil
	}
	temporary := name + temporarySuffix
	fd, err := unix.Openat(int(c.dir.Fd()), temporary, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return os.NewSyscallError("create", err)
	}
	c.temporary = temporary
	f := os.NewFile(uintptr(fd), temporary)
	defer f.Close()
	if _, err := f.Write(c.after); err != nil {
		return err
	}
	mode := c.mode
	if c.before != nil {
		mode = c.before.info.Mode&0o7777 | c.mode&0o111 // what is called must be executable
		if err := f.Chown(int(c.before.info.Uid), int(c.before.info.Gid)); err != nil {
			return err
		}
		c.copyAttributes(fd)
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return os.NewSyscallError("fchmod", err)
	}
	return f.Sync()
}

// copyAttributes gives the new file the extended attributes of the old one: its
// SELinux label and access lists. A file system without them has none to copy.
func (c *change) copyAttributes(fd int) {
	old, err := unix.Openat(int(c.dir.Fd()), c.base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(old)
	list := make([]byte, 1<<16)
	n, err := unix.Flistxattr(old, list)
	if err != nil {
		return
	}
	value := make([]byte, 1<<16)
	for name := range strings.SplitSeq(string(list[:n]), "\x00") {
		if size, err := unix.Fgetxattr(old, name, value); err == nil && name != "" {
			_ = unix.Fsetxattr(fd, name, value[:size], 0)
		}
	}
}

var errChanged = errors.New("was changed by somebody else meanwhile; try again")

// commit puts the new file into its place, or takes the old one away. The old
// one stays under another name until all is done.
func (c *change) commit() error {
	dir, name := int(c.dir.Fd()), c.base
	var now unix.Stat_t
	err := unix.Fstatat(dir, name, &now, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case c.before == nil && errors.Is(err, unix.ENOENT):
	case err != nil:
		return os.NewSyscallError("stat", err)
	case c.before == nil || now.Ino != c.before.info.Ino || now.Dev != c.before.info.Dev || now.Mtim != c.before.info.Mtim || now.Size != c.before.info.Size:
		return errChanged
	}
	switch {
	case c.remove:
		if err := unix.Renameat(dir, name, dir, c.backup); err != nil {
			return os.NewSyscallError("rename", err)
		}
	default:
		if c.before != nil {
			if err := unix.Linkat(dir, name, dir, c.backup, 0); err != nil {
				return os.NewSyscallError("link", err) // EXDEV: something is mounted on it
			}
		}
		if err := unix.Renameat(dir, c.temporary, dir, name); err != nil {
			return os.NewSyscallError("rename", err)
		}
		c.temporary = ""
	}
	c.done = true
	if err := c.dir.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	return nil
}

// undo takes back what was committed, in reverse.
func (x *transaction) undo() {
	for i := len(x.changes) - 1; i >= 0; i-- {
		c := x.changes[i]
		switch {
		case !c.done:
		case c.before != nil:
			_ = unix.Renameat(int(c.dir.Fd()), c.backup, int(c.dir.Fd()), c.base)
		default:
			_ = unix.Unlinkat(int(c.dir.Fd()), c.base, 0)
		}
	}
	for _, c := range x.changes {
		if c.dir != nil {
			removeTemporary(c.dir)
		}
	}
	for i := len(x.folders) - 1; i >= 0; i-- {
		x.tree.removeFolder(x.folders[i])
	}
}

// cleanUp removes the old files, and closes the folders.
func (x *transaction) cleanUp() {
	for _, c := range x.changes {
		if c.dir != nil {
			removeTemporary(c.dir)
			c.dir.Close()
			c.dir = nil
		}
	}
}

// removeTemporary removes the temporary files of a folder. None of them is in
// use by another run: see [tree.lock].
func removeTemporary(dir *os.File) {
	if _, err := dir.Seek(0, 0); err != nil {
		return
	}
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		if strings.HasPrefix(name, temporaryPrefix) && strings.HasSuffix(name, temporarySuffix) {
			_ = unix.Unlinkat(int(dir.Fd()), name, 0)
		}
	}
}
