package cure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/helper/fdstore"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"

	"golang.org/x/sys/unix"
)

// The test binary is also the helper, as the program is.
func init() {
	if len(os.Args) > 1 && os.Args[1] == fdstore.Verb {
		if fdstore.Run(os.Args[2:]) != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// covered is a process in a mount namespace with an autofs mount that a tmpfs
// covers.
type covered struct {
	init *nsenter.Process
	dir  string // of the journal
	path string
}

func newCovered(t *testing.T) *covered {
	t.Helper()
	if _, err := os.Stat(autofs.ControlPath); err != nil || os.Geteuid() != 0 {
		if os.Getenv("REQUIRE") == "1" {
			t.Fatalf("required: root and autofs: %v", err)
		}
		t.Skipf("skipped: needs root and autofs: %v", err)
	}
	base := t.TempDir()
	c := &covered{
		init: testproc.Open(t, testenv.Start(t, &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS})),
		dir:  t.TempDir(), path: filepath.Join(base, "a b"),
	}
	c.do(t, func() error {
		return errors.Join(unix.Mount("base", base, "tmpfs", 0, "size=1m"), os.Mkdir(c.path, 0o755))
	})
	c.mountAutofs(t)
	c.do(t, func() error { return cover(c.path) })
	return c
}

func (c *covered) do(t *testing.T, f func() error) {
	t.Helper()
	if err := c.init.InMountNamespace(context.Background(), func(*nsenter.Thread) error { return f() }); err != nil {
		t.Fatal(err)
	}
}

// mountAutofs mounts a new autofs at the path.
func (c *covered) mountAutofs(t *testing.T) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	defer w.Close()
	root, err := autofs.Create(autofs.CreateOptions{PipeWriter: w, Type: autofs.Direct, UID: -1, GID: -1, Source: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	c.do(t, func() error {
		return unix.MoveMount(int(root.Fd()), "", unix.AT_FDCWD, c.path, unix.MOVE_MOUNT_F_EMPTY_PATH)
	})
}

// cover mounts a tmpfs with a directory in it on the root of an autofs mount.
func cover(path string) error {
	target, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer unix.Close(target)
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("fsopen: %w", err)
	}
	defer unix.Close(fs)
	err = unix.FsconfigCreate(fs)
	mount, err2 := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	defer unix.Close(mount)
	return errors.Join(unix.Mkdirat(mount, "content", 0o755),
		unix.MoveMount(mount, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH))
}

// uncover detaches all mounts at the path, including the autofs mount.
func (c *covered) uncover(t *testing.T) {
	t.Helper()
	c.do(t, func() error {
		for {
			if err := unix.Unmount(c.path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
				if errors.Is(err, unix.EINVAL) {
					return nil // no mount is left
				}
				return err
			}
		}
	})
}

// session opens the container and returns a session on it.
func (c *covered) session(t *testing.T) *Session {
	t.Helper()
	return NewSession(c.open(t), journal.NewStore(c.dir), func(err error) { t.Error(err) })
}

func (c *covered) open(t *testing.T) *container.Container {
	t.Helper()
	opened, err := container.Open(c.init, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(opened.Close)
	return opened
}

// current returns the autofs mount at the path and its covers.
func (c *covered) current(t *testing.T) (*mounts.Mount, []*mounts.Mount) {
	t.Helper()
	table := c.open(t).Main().Table
	list := table.Autofs()
	if len(list) != 1 || list[0].Mountpoint != c.path {
		t.Fatalf("autofs mounts %v", list)
	}
	return list[0], table.Covers(list[0])
}

// saveAndInterrupt saves the covers, as a run does that is killed after that.
func (c *covered) saveAndInterrupt(t *testing.T) fdstore.Ref {
	t.Helper()
	m, _ := c.current(t)
	saved, err := c.session(t).saveCovers(context.Background(), c.init, &container.Mount{ID: m.ID, Path: c.path, Device: mounts.DeviceOf(m)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = saved.helper.Stop(context.Background())
		_, _ = unix.Wait4(saved.helper.PID, nil, 0, nil)
	})
	if err := saved.copies.Close(); err != nil {
		t.Error(err)
	}
	return saved.helper
}

// expectDropped fails the test if there is still an entry or the helper.
func (c *covered) expectDropped(t *testing.T, ref fdstore.Ref) {
	t.Helper()
	if entries, err := os.ReadDir(filepath.Join(c.dir, "covers")); err != nil || len(entries) != 0 {
		t.Errorf("entries: %v, %v", entries, err)
	}
	if f, err := ref.Open(0); !errors.Is(err, fdstore.ErrGone) {
		t.Errorf("the helper: %v, %v", f, err)
	}
}

// TestRestoreCovers: the saved covers of a killed run are restored on the recreated mount,
// once.
func TestRestoreCovers(t *testing.T) {
	c := newCovered(t)
	ref := c.saveAndInterrupt(t)
	c.uncover(t)
	c.mountAutofs(t)
	session := c.session(t)
	for range 2 {
		if err := session.restoreCovers(context.Background()); err != nil {
			t.Fatal(err)
		}
		if _, stack := c.current(t); len(stack) != 1 || stack[0].FSType != "tmpfs" {
			t.Errorf("covered by %v", stack)
		}
	}
	if table := session.container.Main().Table; len(table.Covers(table.Autofs()[0])) != 1 {
		t.Error("the session has the old tables")
	}
	c.do(t, func() error { _, err := os.Stat(filepath.Join(c.path, "content")); return err })
	c.expectDropped(t, ref)
}

// TestRestoreCoversUnchanged: nothing is mounted if the autofs mount was not recreated.
func TestRestoreCoversUnchanged(t *testing.T) {
	c := newCovered(t)
	ref := c.saveAndInterrupt(t)
	before, _ := c.current(t)
	if err := c.session(t).restoreCovers(context.Background()); err != nil {
		t.Fatal(err)
	}
	if now, stack := c.current(t); now.ID != before.ID || len(stack) != 1 {
		t.Errorf("%v covered by %v", now, stack)
	}
	c.expectDropped(t, ref)
}

// TestRestoreCoversCovered: if the recreated mount has another cover, the copies are kept
// until that is unmounted: they may be the last mount of a filesystem.
func TestRestoreCoversCovered(t *testing.T) {
	c := newCovered(t)
	ref := c.saveAndInterrupt(t)
	c.uncover(t)
	c.mountAutofs(t)
	c.do(t, func() error { return cover(c.path) })
	_, before := c.current(t)
	if err := c.session(t).restoreCovers(context.Background()); !errors.Is(err, mounts.ErrChanged) {
		t.Errorf("%v", err)
	}
	if _, stack := c.current(t); len(stack) != 1 || stack[0].ID != before[0].ID {
		t.Errorf("covered by %v, was by %v", stack, before)
	}
	c.do(t, func() error { return unix.Unmount(c.path, unix.MNT_DETACH) })
	if err := c.session(t).restoreCovers(context.Background()); err != nil {
		t.Error(err)
	}
	if _, stack := c.current(t); len(stack) != 1 || stack[0].ID == before[0].ID {
		t.Errorf("covered by %v", stack)
	}
	c.expectDropped(t, ref)
}

// TestRestoreCoversEntries: entries of other containers stay; damaged ones and those whose
// helper has ended are removed.
func TestRestoreCoversEntries(t *testing.T) {
	c := newCovered(t)
	session := c.session(t)
	restore := func() error { return session.restoreCovers(context.Background()) }
	if err := restore(); err != nil {
		t.Errorf("without a directory: %v", err)
	}
	id := c.init.Identity()
	for name, text := range map[string]string{
		id + "0.5.json": "{}", "1-1.5.json": "{}", id + ".6.json": `{"version":2}`, id + ".7.json": "{", id + ".8.json": `{"version":1,"path":"/a","holder":{"pid":0,"files":1}}`,
	} {
		testenv.WriteFile(t, filepath.Join(c.dir, "covers", name), text)
	}
	err := restore()
	if err == nil || !errors.Is(err, fdstore.ErrGone) || strings.Contains(err.Error(), "%!") ||
		strings.Count(err.Error(), "not of this version") != 2 {
		t.Errorf("%v", err)
	}
	if left, err := os.ReadDir(filepath.Join(c.dir, "covers")); err != nil || len(left) != 2 || restore() != nil {
		t.Errorf("left %v, %v", left, err)
	}
}
