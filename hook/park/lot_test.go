package park

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// mountOn mounts a file system with content on a lot, as a master's new trigger.
func (s *space) mountOn(t *testing.T, name string) {
	t.Helper()
	s.run(t, func(*nsenter.Thread) error { // we are in the lot's process group: it lets us pass
		path := filepath.Join("/mnt", name)
		if err := unix.Mount("content", path, "tmpfs", 0, ""); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(path, "hello"), []byte(name), 0o644)
	})
}

// TestReady: the processes in several lots walk on into what is mounted there. One
// that was killed meanwhile, and a lot that was released, do not matter.
func TestReady(t *testing.T) {
	testenv.RequireRoot(t)
	s := newSpace(t, nil, unix.MS_PRIVATE)
	s.run(t, func(*nsenter.Thread) error { return unix.Mount("base", "/mnt", "tmpfs", 0, "") })
	lots := []*Lot{s.automount(t, "released"), s.automount(t, "one"), s.automount(t, "two")}
	ended, killed := s.touch(t, "released"), s.touch(t, "one")
	list := []*toucher{s.touch(t, "one"), s.touch(t, "one"), s.touch(t, "two")}
	if err := killed.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	killed.expect(t, "")
	if err := autofs.Release(lots[0].Root); err != nil {
		t.Fatal(err)
	}
	ended.expect(t, "cat: /mnt/released/hello: No such file or directory")
	s.mountOn(t, "one")
	s.mountOn(t, "two")
	if err := Continue(lots); err != nil {
		t.Error(err)
	}
	for i, name := range []string{"one", "one", "two"} {
		list[i].expect(t, name)
	}
	if err := Continue(lots); err != nil {
		t.Errorf("without requests: %v", err)
	}
}

// TestResume: another process answers with copies of the files.
func TestResume(t *testing.T) {
	testenv.RequireRoot(t)
	s := newSpace(t, nil, unix.MS_PRIVATE)
	s.run(t, func(*nsenter.Thread) error { return unix.Mount("base", "/mnt", "tmpfs", 0, "") })
	lot := s.automount(t, "one")
	copied := make([]*os.File, 0, 2)
	for _, f := range []*os.File{lot.Root, lot.Pipe} {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		copied = append(copied, os.NewFile(uintptr(fd), f.Name()))
	}
	resumed := OpenLot(copied[0], copied[1])
	defer resumed.CloseFiles()
	p := s.touch(t, "one")
	s.mountOn(t, "one")
	if err := Continue([]*Lot{resumed}); err != nil {
		t.Error(err)
	}
	p.expect(t, "one")
	mine, err := lot.Device()
	if other, err2 := resumed.Device(); err != nil || err2 != nil || mine != other {
		t.Errorf("device %d (%v) and %d (%v)", mine, err, other, err2)
	}
}
