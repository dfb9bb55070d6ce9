package install

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Limits of what is read, in bytes.
const (
	maxText    = 1 << 20
	maxProgram = 64 << 20
)

// file is a file as it was found. Nil stands for none.
type file struct {
	data []byte
	info unix.Stat_t
}

// read reads a regular file of the tree; nil if there is none. Its last name is
// not followed if it is a link.
func (t *tree) read(name string, limit int64) (*file, error) {
	above, base := split(name)
	dir, err := t.open(above, unix.O_PATH|unix.O_DIRECTORY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	f := &file{}
	if err := unix.Fstatat(int(dir.Fd()), base, &f.info, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil, nil
		}
		return nil, &os.PathError{Op: "stat", Path: t.show(name), Err: err}
	}
	if err := f.regular(); err != nil {
		return nil, fmt.Errorf("%s: %w", t.show(name), err)
	}
	fd, err := unix.Openat(int(dir.Fd()), base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: t.show(name), Err: err}
	}
	opened := os.NewFile(uintptr(fd), t.show(name))
	defer opened.Close()
	if err := unix.Fstat(fd, &f.info); err != nil {
		return nil, &os.PathError{Op: "stat", Path: t.show(name), Err: err}
	}
	if err := f.regular(); err != nil {
		return nil, fmt.Errorf("%s: %w", t.show(name), err)
	}
	if f.data, err = io.ReadAll(io.LimitReader(opened, limit+1)); err != nil {
		return nil, err
	}
	if int64(len(f.data)) > limit {
		return nil, fmt.Errorf("%s: longer than %d bytes; nothing is changed", t.show(name), limit)
	}
	return f, nil
}

func (f *file) regular() error {
	switch f.info.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return nil
	case unix.S_IFLNK:
		return errors.New("a symbolic link, where a file belongs; nothing is changed")
	case unix.S_IFDIR:
		return errors.New("a directory, where a file belongs; nothing is changed")
	}
	return errors.New("not a regular file; nothing is changed")
}

// readText is read for a text.
func (t *tree) readText(name string) (*file, error) {
	f, err := t.read(name, maxText)
	if err == nil && f != nil && bytes.IndexByte(f.data, 0) >= 0 {
		return nil, fmt.Errorf("%s: has NUL bytes, so it is no text; nothing is changed", t.show(name))
	}
	return f, err
}

// text is the content of a file of an engine, "" if it cannot be read: what is
// only looked at must not stop anything.
func (t *tree) text(name string) string {
	name, err := t.follow(name)
	if err != nil {
		return ""
	}
	f, err := t.readText(name)
	if err != nil || f == nil {
		return ""
	}
	return string(f.data)
}

// names lists a folder, sorted; nothing if it cannot be read.
func (t *tree) names(dir string) []string {
	f, err := t.open(dir, os.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return names
}
