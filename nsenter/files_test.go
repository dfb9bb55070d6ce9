package nsenter

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
)

// TestOpenFileDescriptor opens the other end of a pipe.
func TestOpenFileDescriptor(t *testing.T) {
	c := testenv.Start(t, nil)
	w, err := open(t, c).OpenFileDescriptor(0, unix.S_IFIFO, unix.O_WRONLY|unix.O_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var mine, theirs unix.Stat_t
	if err := errors.Join(unix.Fstat(int(w.Fd()), &mine), unix.Fstat(int(c.Input.Fd()), &theirs)); err != nil {
		t.Fatal(err)
	}
	if mine.Ino != theirs.Ino {
		t.Error("another pipe")
	}
	if flags, err := unix.FcntlInt(w.Fd(), unix.F_GETFL, 0); err != nil || flags&unix.O_ACCMODE != unix.O_WRONLY {
		t.Errorf("access mode %#o, %v", flags, err)
	}
	if flags, err := unix.FcntlInt(w.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("not close-on-exec (%v)", err)
	}
}

// TestOpenKind: what is something else is not opened, and not even for a moment.
func TestOpenKind(t *testing.T) {
	self, err := Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for kind, want := range map[uint32]error{unix.S_IFCHR: nil, unix.S_IFREG: ErrFileKind, unix.S_IFIFO: ErrFileKind} {
		f, err := self.OpenFileDescriptor(int(null.Fd()), kind, unix.O_WRONLY)
		if !errors.Is(err, want) {
			t.Errorf("kind %#o: %v, want %v", kind, err, want)
		}
		if err == nil {
			f.Close()
		}
	}
}

// TestLinkMode: the bits tell for what a file is open.
func TestLinkMode(t *testing.T) {
	self, err := Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	for flags, want := range map[int]uint32{
		unix.O_RDONLY: 0o500, unix.O_WRONLY: 0o300, unix.O_RDWR | unix.O_NONBLOCK: 0o700, unix.O_PATH: 0,
	} {
		f, err := os.OpenFile(os.DevNull, flags, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		mode, err := self.LinkMode(fmt.Sprintf("fd/%d", f.Fd()))
		if err != nil || mode != unix.S_IFLNK|want {
			t.Errorf("flags %#x: %#o, %v, want %#o", flags, mode, err, want)
		}
	}
	if _, err := self.LinkMode("fd/1000000"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
