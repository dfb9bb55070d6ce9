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

	"golang.org/x/sys/unix"
)

// tree is a root folder. Its paths are absolute, and never lead out of it.
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
		return nil, fmt.Errorf("root folder: %w", err)
	}
	return &tree{name: name, dir: dir}, nil
}

func (t *tree) close() { t.dir.Close() }

// lockTime is how long a run waits for another one.
const lockTime = 30 * time.Second

// lock waits for other runs on the same root. It needs no file: the root folder
// itself is locked, whatever its path, until the tree is closed.
func (t *tree) lock(ctx context.Context) error {
	for end := time.Now().Add(lockTime); ; {
		err := unix.Flock(int(t.dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return &os.PathError{Op: "flock", Path: t.name, Err: err}
		case ctx.Err() != nil || time.Now().After(end):
			return fmt.Errorf("another run installs or uninstalls in %s; try again when it has ended", t.name)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// open opens a path of the tree. Symbolic links are followed, inside the tree.
func (t *tree) open(name string, flags int) (*os.File, error) {
	how := &unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(int(t.dir.Fd()), name, how)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			continue // EAGAIN: something was renamed on the way (openat2(2))
		}
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: t.show(name), Err: err}
		}
		return os.NewFile(uintptr(fd), t.show(name)), nil
	}
}

// show is the name of a path for messages.
func (t *tree) show(name string) string { return path.Join(t.name, name) }

// split cuts a path before its last name. Nothing is cleaned: what .. means
// after a link, only the kernel knows.
func split(name string) (dir, base string) {
	i := strings.LastIndexByte(name, '/')
	if i <= 0 {
		return "/", name[i+1:]
	}
	return name[:i], name[i+1:]
}

// missing lists the folders that have to be made for a file, the upper first.
func (t *tree) missing(file string) ([]string, error) {
	var list []string
	for dir, _ := split(file); ; dir, _ = split(dir) {
		f, err := t.open(dir, unix.O_PATH|unix.O_DIRECTORY)
		if err == nil {
			f.Close()
			return list, nil
		}
		if !errors.Is(err, fs.ErrNotExist) || dir == "/" {
			return nil, err
		}
		list = append([]string{dir}, list...)
	}
}

// makeFolder makes a folder in one that exists.
func (t *tree) makeFolder(name string) error {
	dir, base := split(name)
	above, err := t.open(dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer above.Close()
	if err := unix.Mkdirat(int(above.Fd()), base, 0o755); err != nil {
		return &os.PathError{Op: "mkdir", Path: t.show(name), Err: err}
	}
	f, err := t.open(name, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Chmod(0o755) // whatever the umask
}

// removeFolder removes a folder if it is empty.
func (t *tree) removeFolder(name string) {
	dir, base := split(name)
	above, err := t.open(dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return
	}
	defer above.Close()
	_ = unix.Unlinkat(int(above.Fd()), base, unix.AT_REMOVEDIR)
}

// maxLinks bounds a chain of symbolic links, as the kernel does.
const maxLinks = 40

// follow returns the path of the file that a symbolic link leads to, in the
// tree. A path that is no link is returned as it is.
func (t *tree) follow(name string) (string, error) {
	for range maxLinks {
		above, base := split(name)
		dir, err := t.open(above, unix.O_PATH|unix.O_DIRECTORY)
		if errors.Is(err, fs.ErrNotExist) {
			return name, nil
		}
		if err != nil {
			return "", err
		}
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(int(dir.Fd()), base, buf)
		dir.Close()
		if err != nil {
			return name, nil // absent, or no link
		}
		target := string(buf[:n])
		if !strings.HasPrefix(target, "/") {
			target = above + "/" + target
		}
		name = target
	}
	return "", &os.PathError{Op: "open", Path: t.show(name), Err: unix.ELOOP}
}
