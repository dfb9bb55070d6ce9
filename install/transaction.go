package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/rogpeppe/go-internal/diff"
	"golang.org/x/sys/unix"
)

// change writes or removes a file.
type change struct {
	path   string
	before *file // nil: the file does not exist
	after  []byte
	remove bool
	mode   fs.FileMode // of a new file; an existing one gets the execute bits
	// skip, if not nil, is called right before the change and can prevent it.
	skip    func() bool
	skipped bool

	dir               *os.Root // of the file
	base              string   // the file's name in it
	temporary, backup string
	done              bool
}

// Temporary files have names that no engine reads.
const (
	temporaryPrefix = "." + programName + "-"
	temporarySuffix = ".tmp"
)

// transaction carries out all changes or none.
type transaction struct {
	tree    *tree
	changes []*change
	created []string // directories
	// check, if not nil, runs before the file checkBefore is changed, or else at the
	// end; its error rolls everything back.
	check       func() error
	checkBefore string
}

// apply creates the directories, writes each new file next to its destination, and then
// renames the files in the given order.
func (x *transaction) apply(dirs []string) (err error) {
	defer func() {
		if err != nil {
			x.rollBack()
		}
		x.close()
	}()
	for _, name := range dirs {
		if err := x.tree.makeDir(name); err != nil {
			return err
		}
		x.created = append(x.created, name)
	}
	for _, c := range x.changes {
		if c.dir, c.base, err = x.tree.openParent(c.path); err != nil {
			return err
		}
		removeTemporary(c.dir) // of killed runs
	}
	for i, c := range x.changes {
		if err := c.stage(i); err != nil {
			return fmt.Errorf("%s: %w; the files are as before", x.tree.show(c.path), err)
		}
	}
	for _, c := range x.changes {
		if c.path == x.checkBefore {
			if err := x.checkOnce(); err != nil {
				return err
			}
		}
		if c.skipped = c.skip != nil && c.skip(); c.skipped {
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

// stage writes the new file under a temporary name. Only renames remain then, so a
// full disk is detected here.
func (c *change) stage(number int) error {
	name := fmt.Sprintf("%s%d-%d", temporaryPrefix, os.Getpid(), number)
	c.temporary, c.backup = name+temporarySuffix, name+"-old"+temporarySuffix
	if c.remove {
		return nil
	}
	f, err := c.dir.OpenFile(c.temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(c.after); err != nil {
		return err
	}
	mode := c.mode
	if c.before != nil {
		mode = c.before.info.Mode() | c.mode&0o111 // what CRIU calls must be executable
		if owner, ok := c.before.info.Sys().(*syscall.Stat_t); ok {
			if err := f.Chown(int(owner.Uid), int(owner.Gid)); err != nil {
				return err
			}
		}
		c.copyAttributes(f)
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	return f.Sync()
}

// copyAttributes copies the extended attributes of the old file: its SELinux label and
// access lists. A file system without them has none to copy.
func (c *change) copyAttributes(f *os.File) {
	old, err := c.dir.OpenFile(c.base, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer old.Close()
	list, value := make([]byte, 1<<16), make([]byte, 1<<16)
	n, err := unix.Flistxattr(int(old.Fd()), list)
	if err != nil {
		return
	}
	for name := range strings.SplitSeq(string(list[:n]), "\x00") {
		if size, err := unix.Fgetxattr(int(old.Fd()), name, value); err == nil && name != "" {
			_ = unix.Fsetxattr(int(f.Fd()), name, value[:size], 0)
		}
	}
}

var errChanged = errors.New("another process changed the file meanwhile; try again")

// commit renames the new file to its destination, or the old one away. The old file
// keeps a second name until the transaction ends.
func (c *change) commit() error {
	now, err := c.dir.Lstat(c.base)
	switch {
	case c.before == nil && errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case c.before == nil || !c.before.unchanged(now):
		return errChanged
	}
	if c.remove {
		err = c.dir.Rename(c.base, c.backup)
	} else {
		if c.before != nil {
			if err := c.dir.Link(c.base, c.backup); err != nil {
				return err // EXDEV: it is a mount point
			}
		}
		err = c.dir.Rename(c.temporary, c.base)
	}
	if err != nil {
		return err
	}
	c.done = true
	dir, err := c.dir.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	return nil
}

// rollBack undoes the committed changes, in reverse.
func (x *transaction) rollBack() {
	for _, c := range slices.Backward(x.changes) {
		switch {
		case !c.done:
		case c.before != nil:
			_ = c.dir.Rename(c.backup, c.base)
		default:
			_ = c.dir.Remove(c.base)
		}
	}
	x.close()
	for _, name := range slices.Backward(x.created) {
		x.tree.removeDir(name)
	}
}

// close removes the temporary files and closes the directories.
func (x *transaction) close() {
	for _, c := range x.changes {
		if c.dir != nil {
			removeTemporary(c.dir)
			c.dir.Close()
			c.dir = nil
		}
	}
}

// removeTemporary removes the temporary files of a directory. No other run uses any of
// them: see [tree.lock].
func removeTemporary(dir *os.Root) {
	names, _ := fs.Glob(dir.FS(), temporaryPrefix+"*"+temporarySuffix)
	for _, name := range names {
		_ = dir.Remove(name)
	}
}

// diff returns the change in the unified format, one line for a program.
func (c *change) diff(t *tree) string {
	from, to, name := "/dev/null", "/dev/null", t.show(c.path)
	var before []byte
	if c.before != nil {
		from, before = name, c.before.data
	}
	if !c.remove {
		to = name
	}
	switch isText := !isProgram(c.after) && !isProgram(before) && c.mode != 0o755; {
	case isText:
		return string(diff.Diff(from, before, to, c.after))
	case c.remove:
		return fmt.Sprintf("Program %s: removed\n", name)
	case c.before == nil:
		return fmt.Sprintf("Program %s: new, %d bytes\n", name, len(c.after))
	}
	return fmt.Sprintf("Program %s: %d bytes become %d\n", name, len(before), len(c.after))
}
