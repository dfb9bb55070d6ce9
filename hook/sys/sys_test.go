package sys

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestRetry(t *testing.T) {
	calls := 0
	_, err := Retry(func() (int, error) {
		if calls++; calls < 3 {
			return 0, unix.EINTR
		}
		return 0, unix.EIO
	})
	if calls != 3 || !errors.Is(err, unix.EIO) {
		t.Errorf("%d calls, %v", calls, err)
	}
}

// TestNoFile: a caller that lost its file gets an error that says so, not EBADF.
func TestNoFile(t *testing.T) {
	if _, err := Stat(nil); !errors.Is(err, errNoFile) {
		t.Errorf("nil file: %v", err)
	}
	if _, err := OpenAt(nil, "x", unix.O_RDONLY); !errors.Is(err, errNoFile) {
		t.Errorf("relative path without a directory: %v", err)
	}
	f, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, err := OpenAt(f, "x", unix.O_RDONLY); !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed file: %v", err)
	}
}

func TestOpenAt2(t *testing.T) {
	path := t.TempDir()
	if err := os.Symlink("/etc", filepath.Join(path, "link")); err != nil {
		t.Fatal(err)
	}
	dir, err := OpenAt(nil, path, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	_, err = OpenAt2(dir, "link/passwd", unix.O_PATH, unix.RESOLVE_BENEATH)
	var pathErr *os.PathError
	if !errors.As(err, &pathErr) || pathErr.Path != path+"/link/passwd" || !errors.Is(err, unix.EXDEV) {
		t.Errorf("a link out of the directory: %v", err)
	}
	if link, err := ReadlinkAt(dir, "link"); err != nil || link != "/etc" {
		t.Errorf("link to %q, %v", link, err)
	}
}

// TestOpenAt2Again: a call that fails with EAGAIN each time returns. The kernel refuses
// O_TRUNC with RESOLVE_CACHED so (build_open_flags() in fs/open.c, Linux 5.12).
func TestOpenAt2Again(t *testing.T) {
	const resolveCached = 0x20 // include/uapi/linux/openat2.h
	if _, err := OpenAt2(nil, "/", unix.O_TRUNC, resolveCached); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("%v, want EAGAIN", err)
	}
}

func TestPoll(t *testing.T) {
	reader, writer, err := Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	defer writer.Close()
	fds := []unix.PollFd{{Fd: int32(reader.Fd()), Events: unix.POLLIN}}
	begin := time.Now()
	if n, err := Poll(fds, 10*time.Millisecond); n != 0 || err != nil || time.Since(begin) < 10*time.Millisecond {
		t.Errorf("empty pipe: %d, %v after %v", n, err, time.Since(begin))
	}
	if _, err := writer.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	if n, err := Poll(fds, 0); n != 1 || err != nil {
		t.Errorf("full pipe: %d, %v", n, err)
	}
}

// TestMountError: the error of a refused call names what was asked of the kernel.
func TestMountError(t *testing.T) {
	testenv.RequireRoot(t)
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	err = SetPropagation(dir, unix.MS_SHARED) // not the root of a mount
	var mountErr *MountError
	if !errors.As(err, &mountErr) || !errors.Is(err, unix.EINVAL) || mountErr.Op != "mount_setattr" {
		t.Fatalf("%v", err)
	}
	if want := "(MS_SHARED)"; !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), dir.Name()) {
		t.Errorf("%q: no %s or no path", err, want)
	}
	err = MoveMount(dir, dir, "")
	if want := "(MOVE_MOUNT_F_EMPTY_PATH|MOVE_MOUNT_T_EMPTY_PATH)"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v: no %s", err, want)
	}
	_, err = OpenFSContext("no-such-file-system")
	if !errors.As(err, &mountErr) || mountErr.Source != "no-such-file-system" || !errors.Is(err, unix.ENODEV) {
		t.Errorf("%v", err)
	}
}

// TestNewRamfs mounts a file system, copies its mount and detaches it again.
func TestNewRamfs(t *testing.T) {
	testenv.RequireRoot(t)
	root, err := NewRamfs("scratch")
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := MkdirAt(root, "d", 0o700); err != nil {
		t.Fatal(err)
	}
	st, err := StatFS(root)
	if err != nil || st.Type != unix.RAMFS_MAGIC {
		t.Errorf("file system type %#x, %v", st.Type, err)
	}
}
