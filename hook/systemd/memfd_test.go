package systemd

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// TestStateIsMemfd has files whose links read like that of systemd's state. They
// are seen by a thread whose root is the folder where they are: their paths are
// as in a container.
func TestStateIsMemfd(t *testing.T) {
	testenv.RequireRoot(t)
	root := t.TempDir()
	if err := unix.Mount("none", root, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	self, err := nsenter.Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()

	named, err := os.Create(filepath.Join(root, "memfd:systemd-state (deleted)"))
	if err != nil {
		t.Fatal(err)
	}
	defer named.Close()
	deleted, err := os.Create(filepath.Join(root, "memfd:systemd-state"))
	if err != nil {
		t.Fatal(err)
	}
	defer deleted.Close()
	if err := os.Remove(deleted.Name()); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.MemfdCreate("systemd-state", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	state := os.NewFile(uintptr(fd), "state")
	defer state.Close()
	readOnly, err := os.Open("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		t.Fatal(err)
	}
	defer readOnly.Close()

	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Chroot(root)
		}
		if err != nil {
			t.Error(err)
			return
		}
		for what, f := range map[string]*os.File{
			"a file of that path": named, "a deleted file on a tmpfs": deleted, "a memfd that is only read": readOnly,
		} {
			fd := int(f.Fd())
			if link, err := self.Readlink("fd/" + strconv.Itoa(fd)); link != stateName {
				t.Errorf("%s: its link is %q (%v), so this shows nothing", what, link, err)
			}
			if isState(self, fd) {
				t.Errorf("%s is taken for systemd's state", what)
			}
		}
		if !isState(self, fd) {
			t.Error("a memfd of that name is not taken for systemd's state")
		}
	}()
	<-done
}
