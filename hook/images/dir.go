//go:build linux

package images

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxEntries bounds the names in an image directory. A checkpoint has some ten
// files for each process.
const maxEntries = 1 << 20

// names of the files that matter, by the number in the name.
type names struct {
	mounts      map[uint32]string // by CRIU's namespace id
	superblocks map[uint32]string // by device, as in the image
}

// list reads the directory through a descriptor of its own, so that the caller's
// position stays where it is and an O_PATH one works too.
func list(dir *os.File) (names, error) {
	n := names{mounts: make(map[uint32]string), superblocks: make(map[uint32]string)}
	own, err := openAt(dir, ".", unix.O_DIRECTORY)
	if err != nil {
		return n, err
	}
	defer own.Close()
	for count := 0; ; {
		batch, err := own.Readdirnames(1024)
		for _, name := range batch {
			if id, ok := number(name, "mountpoints-"); ok {
				n.mounts[id] = name
			} else if id, ok := number(name, "autofs-"); ok {
				n.superblocks[id] = name
			}
		}
		count += len(batch)
		if count > maxEntries || len(n.mounts) > maxFiles || len(n.superblocks) > maxFiles {
			return n, fmt.Errorf("image directory %s: %w: too many files", dir.Name(), ErrTooLarge)
		}
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, fmt.Errorf("list image directory: %w", err)
		}
	}
}

// number parses prefix + decimal u32 + ".img". CRIU prints %u, so anything else
// with the same ends is not CRIU's.
func number(name, prefix string) (uint32, bool) {
	digits, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return 0, false
	}
	digits, ok = strings.CutSuffix(digits, ".img")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || strconv.FormatUint(n, 10) != digits {
		return 0, false
	}
	return uint32(n), true
}

// load reads a whole image. The file is looked at after it is open: a FIFO or a
// device of that name would otherwise block or act.
func load(dir *os.File, name string, limit int) (*file, error) {
	f, err := openAt(dir, name, unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("CRIU image: %w", err)
	}
	image := &file{name: name}
	if !info.Mode().IsRegular() {
		return nil, image.fail(0, "", fmt.Errorf("%w: %s", ErrFileType, info.Mode().Type()))
	}
	tooLarge := func(size int64) error {
		return image.fail(0, "", fmt.Errorf("%w: %d bytes, limit %d", ErrTooLarge, size, limit))
	}
	if info.Size() > int64(limit) {
		return nil, tooLarge(info.Size())
	}
	image.data = make([]byte, info.Size())
	if _, err := io.ReadFull(f, image.data); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			return nil, image.fail(0, "", ErrTruncated)
		}
		return nil, fmt.Errorf("CRIU image: %w", err)
	}
	return image, nil
}

// openAt opens a name in the directory, read-only and close-on-exec.
func openAt(dir *os.File, name string, flags int) (*os.File, error) {
	if dir == nil {
		return nil, errors.New("no image directory given")
	}
	defer runtime.KeepAlive(dir)
	for {
		fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC|flags, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "openat", Path: dir.Name() + "/" + name, Err: err}
		}
		return os.NewFile(uintptr(fd), name), nil
	}
}
