package install

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Limits of what is read, in bytes.
const (
	maxText    = 1 << 20
	maxProgram = 64 << 20
)

// file is a file as it was read. Nil stands for an absent file.
type file struct {
	data []byte
	info fs.FileInfo
}

// unchanged reports whether info, of the same path, still describes the file.
func (f *file) unchanged(info fs.FileInfo) bool {
	return os.SameFile(f.info, info) && f.info.ModTime().Equal(info.ModTime()) && f.info.Size() == info.Size()
}

// read reads a regular file of the tree; nil if it does not exist. It does not follow
// a symbolic link in the last name.
func (t *tree) read(name string, limit int64) (*file, error) {
	dir, base, err := t.openParent(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	info, err := dir.Lstat(base)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, t.pathError(name, err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: %s, not a regular file; nothing is changed", t.show(name), describeType(info))
	}
	f, err := dir.OpenFile(base, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, t.pathError(name, err)
	}
	defer f.Close()
	if opened, err := f.Stat(); err != nil || !os.SameFile(opened, info) {
		return nil, fmt.Errorf("%s: %w", t.show(name), errors.Join(errChanged, err))
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, t.pathError(name, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s: longer than %d bytes; nothing is changed", t.show(name), limit)
	}
	return &file{data: data, info: info}, nil
}

func describeType(info fs.FileInfo) string {
	switch {
	case info.IsDir():
		return "a directory"
	case info.Mode()&fs.ModeSymlink != 0:
		return "a symbolic link"
	}
	return "a special file"
}

// readText is read for a text file.
func (t *tree) readText(name string) (*file, error) {
	f, err := t.read(name, maxText)
	if err == nil && f != nil && bytes.IndexByte(f.data, 0) >= 0 {
		return nil, fmt.Errorf("%s: not a text file, it has NUL bytes; nothing is changed", t.show(name))
	}
	return f, err
}

// text returns the content of an engine's file, "" if it cannot be read.
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
