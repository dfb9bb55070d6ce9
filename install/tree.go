package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/cyphar/filepath-securejoin/pathrs-lite"
	"golang.org/x/sys/unix"
)

// tree is a root directory. Its paths are absolute and never lead out of it.
type tree struct {
	name string
	dir  *os.File
}

func openTree(name string) (*tree, error) {
	if name == "" {
		name = "/"
	}
	dir, err := os.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("root directory: %w", err)
	}
	return &tree{name: name, dir: dir}, nil
}

func (t *tree) close() { t.dir.Close() }

// isOwnRoot reports whether the tree is the root directory of this process.
func (t *tree) isOwnRoot() bool {
	own, err := os.Stat("/")
	dir, dirErr := t.dir.Stat()
	return err == nil && dirErr == nil && os.SameFile(own, dir)
}

const lockTimeout = 30 * time.Second

// lock excludes other runs on the same root until the tree is closed. It locks the
// root directory itself, so it leaves no lock file and does not depend on the path.
func (t *tree) lock(ctx context.Context) error {
	for end := time.Now().Add(lockTimeout); ; time.Sleep(20 * time.Millisecond) {
		err := unix.Flock(int(t.dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return &os.PathError{Op: "flock", Path: t.name, Err: err}
		case ctx.Err() != nil || time.Now().After(end):
			return fmt.Errorf("lock %s: another install or uninstall is running; try again when it has ended", t.name)
		}
	}
}

// show returns a path of the tree for messages.
func (t *tree) show(name string) string { return path.Join(t.name, name) }

// pathError puts the full path into an error of a call that had the last name only.
func (t *tree) pathError(name string, err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return &os.PathError{Op: p.Op, Path: t.show(name), Err: p.Err}
	}
	return fmt.Errorf("%s: %w", t.show(name), err)
}

// openDir opens a directory of the tree. Symbolic links are resolved inside the tree.
func (t *tree) openDir(name string) (*os.Root, error) {
	handle, err := pathrs.OpenatInRoot(t.dir, name)
	if err != nil {
		return nil, t.pathError(name, errors.Unwrap(err))
	}
	defer handle.Close()
	dir, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", handle.Fd()))
	if err != nil {
		return nil, t.pathError(name, err)
	}
	return dir, nil
}

// openParent opens the directory of a file, and returns the file's name in it.
func (t *tree) openParent(name string) (*os.Root, string, error) {
	above, base := split(name)
	dir, err := t.openDir(above)
	return dir, base, err
}

// split cuts a path before its last name. It does not clean the path: only the
// kernel knows what .. means after a link.
func split(name string) (dir, base string) {
	dir, base = path.Split(name)
	if dir = strings.TrimSuffix(dir, "/"); dir == "" {
		dir = "/"
	}
	return dir, base
}

// missingDirs lists the directories to create for a file, parents first.
func (t *tree) missingDirs(file string) ([]string, error) {
	var list []string
	for name, _ := split(file); ; name, _ = split(name) {
		dir, err := t.openDir(name)
		if err == nil {
			dir.Close()
			return list, nil
		}
		if !errors.Is(err, fs.ErrNotExist) || name == "/" {
			return nil, err
		}
		list = append([]string{name}, list...)
	}
}

// makeDir creates a directory in one that exists, with a mode that does not depend on
// the umask.
func (t *tree) makeDir(name string) error {
	dir, base, err := t.openParent(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err = dir.Mkdir(base, 0o755); err == nil {
		err = dir.Chmod(base, 0o755)
	}
	if err != nil {
		return t.pathError(name, err)
	}
	return nil
}

// removeDir removes a directory if it is empty.
func (t *tree) removeDir(name string) {
	if dir, base, err := t.openParent(name); err == nil {
		_ = dir.Remove(base)
		dir.Close()
	}
}

// listDir returns the sorted names in a directory, none if it cannot be read.
func (t *tree) listDir(name string) []string {
	dir, err := t.openDir(name)
	if err != nil {
		return nil
	}
	defer dir.Close()
	entries, _ := fs.ReadDir(dir.FS(), ".")
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// maxLinks bounds a chain of symbolic links, as the kernel does.
const maxLinks = 40

// follow returns the path of the file that a symbolic link names in the tree, also if
// there is no such file. It returns a path that is no link unchanged.
func (t *tree) follow(name string) (string, error) {
	for range maxLinks {
		dir, base, err := t.openParent(name)
		if errors.Is(err, fs.ErrNotExist) {
			return name, nil
		}
		if err != nil {
			return "", err
		}
		target, err := dir.Readlink(base)
		dir.Close()
		if err != nil {
			return name, nil // absent, or no link
		}
		if !path.IsAbs(target) {
			above, _ := split(name)
			target = above + "/" + target
		}
		name = target
	}
	return "", &os.PathError{Op: "open", Path: t.show(name), Err: unix.ELOOP}
}
