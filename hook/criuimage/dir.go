//go:build linux

package criuimage

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
)

// maxEntries bounds the files in an image directory. A checkpoint has about ten for each
// process.
const maxEntries = 1 << 20

// names holds the names of the images to read, by the number in the name.
type names struct {
	mounts      map[uint32]string // by CRIU's namespace id
	superblocks map[uint32]string // by device, as in the image
	clocks      []string
}

// list reads the directory through a descriptor of its own, so that an O_PATH descriptor
// works, and the caller's position does not change.
func list(dir *os.File) (names, error) {
	n := names{mounts: make(map[uint32]string), superblocks: make(map[uint32]string)}
	own, err := sys.OpenAt(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY)
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
			} else if _, ok := number(name, "timens-"); ok {
				n.clocks = append(n.clocks, name)
			}
		}
		count += len(batch)
		if count > maxEntries || len(n.mounts) > maxFiles || len(n.superblocks) > maxFiles || len(n.clocks) > maxFiles {
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

// number parses prefix + decimal u32 + ".img", as CRIU prints it with %u.
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

// load reads a whole image. O_NONBLOCK keeps a FIFO or a device of that name from
// blocking before its type is checked.
func load(dir *os.File, name string, limit int) (*file, error) {
	f, err := sys.OpenAt(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY)
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
