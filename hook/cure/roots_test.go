package cure

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
	"golang.org/x/sys/unix"
)

// TestCatatonicCopy: the old superblock is made catatonic also if another path of the same
// namespace shows it.
func TestCatatonicCopy(t *testing.T) {
	child := testenv.Start(t, &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS})
	c := &covered{init: testproc.Open(t, child), dir: t.TempDir()}
	base := t.TempDir()
	c.path = filepath.Join(base, "a")
	create := func() *os.File {
		f, err := autofs.Create(autofs.CreateOptions{PipeWriter: child.Input, Type: autofs.Direct, UID: -1, GID: -1, Source: "systemd-1"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	old := create()
	longer := filepath.Join(base, "chroot-of-a-service")
	c.do(t, func() error {
		return errors.Join(unix.Mount("base", base, "tmpfs", 0, "size=1m"), os.Mkdir(c.path, 0o755), os.Mkdir(longer, 0o755),
			unix.MoveMount(int(old.Fd()), "", unix.AT_FDCWD, c.path, unix.MOVE_MOUNT_F_EMPTY_PATH),
			unix.Mount(base, longer, "", unix.MS_BIND|unix.MS_REC, ""))
	})
	s := c.session(t)
	list, err := s.container.Survey()
	if err != nil || len(list) != 2 || list[0].Path != c.path || !list[0].Main || !list[1].Main || list[0].Device != list[1].Device {
		t.Fatalf("%+v, %v", list, err)
	}
	s.openOneRoot(t.Context(), list)
	fresh := create()
	var st unix.Stat_t
	if err := unix.Fstat(int(fresh.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	r := []*mounts.Replacement{{Path: c.path, Old: list[0].Device, New: fresh, Device: st.Dev}}
	if err := s.replace(t.Context(), s.container.MountSpaces(), r); err != nil || r[0].Err != nil {
		t.Fatal(err, r[0].Err)
	}
	h := &journal.Handover{NotPreserved: map[string]string{}}
	if err := s.verifyPreserved(h, list, r); err != nil {
		t.Fatal(err)
	}
	if err := s.container.ReadTables(); err != nil {
		t.Fatal(err)
	}
	after, err := s.container.Survey()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range after {
		if m.Device == list[0].Device && !m.Options.Catatonic() {
			t.Errorf("%s: the old superblock is not catatonic", m.Path)
		}
	}
}
