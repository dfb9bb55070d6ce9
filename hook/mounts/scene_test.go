package mounts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// house is a mount namespace with a tmpfs in it, on which autofs mounts lie.
type house struct {
	process *nsenter.Process
	base    string
}

// newHouse makes a namespace whose mount at base has the given propagation.
func newHouse(t *testing.T, propagation uintptr) *house {
	t.Helper()
	testenv.RequireRoot(t)
	_, err := os.Stat(autofs.ControlPath)
	if err != nil {
		if os.Getenv("REQUIRE") == "1" {
			t.Fatalf("required: %v", err)
		}
		t.Skipf("skipped: %v", err)
	}
	h := &house{process: testproc.Open(t, testenv.StartInNamespaces(t, unix.CLONE_NEWNS)), base: t.TempDir()}
	h.do(t, func() error {
		return errors.Join(unix.Mount("base", h.base, "tmpfs", 0, "size=1m"), unix.Mount("", h.base, "", propagation, ""))
	})
	return h
}

// neighbour makes a namespace that is a copy of the house's.
func (h *house) neighbour(t *testing.T, propagation uintptr) *house {
	t.Helper()
	ctx := context.Background()
	var child *house
	// os/exec would make the mounts private: the namespace is copied by unshare.
	c := testenv.StartCommand(t, nil, "nsenter", fmt.Sprintf("--mount=/proc/%d/ns/mnt", h.process.PID()),
		"unshare", "--mount", "--propagation", "unchanged", "cat")
	p := testproc.Open(t, c)
	testenv.Eventually(t, "a copied mount namespace", func() bool {
		here, err := h.process.Namespace("mnt")
		there, err2 := p.Namespace("mnt")
		comm, err3 := p.ReadFile("comm", 100)
		return errors.Join(err, err2, err3) == nil && here != there && string(comm) == "cat\n"
	})
	child = &house{process: p, base: h.base}
	if propagation != 0 {
		err := p.InMountNamespace(ctx, func(*nsenter.Thread) error { return unix.Mount("", "/", "", propagation|unix.MS_REC, "") })
		if err != nil {
			t.Fatal(err)
		}
	}
	return child
}

// do runs f in the namespace. f must not end the test.
func (h *house) do(t *testing.T, f func() error) {
	t.Helper()
	if err := h.process.InMountNamespace(context.Background(), func(*nsenter.Thread) error { return f() }); err != nil {
		t.Fatal(err)
	}
}

func (h *house) table(t *testing.T) *Table {
	t.Helper()
	table, err := Of(h.process)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// text is the mount table below the base, for comparison.
func (h *house) text(t *testing.T) string {
	t.Helper()
	var list []string
	for _, m := range h.table(t).Mounts {
		if strings.HasPrefix(m.Mountpoint, h.base) || strings.Contains(m.Mountpoint, "batch") {
			list = append(list, fmt.Sprintf("%d %s %s", m.ID, m.FSType, m.Mountpoint))
		}
	}
	return strings.Join(list, "\n")
}

func (h *house) space(t *testing.T) Space { return Space{Process: h.process, Table: h.table(t)} }

// superblock creates an autofs without a master, whose pipe is open until the end of the
// test.
func superblock(t *testing.T) (root *os.File, device uint64) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	defer w.Close()
	root, err = autofs.Create(autofs.CreateOptions{PipeWriter: w, Type: autofs.Direct, UID: -1, GID: -1, Source: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	if device, err = autofs.Device(root); err != nil {
		t.Fatal(err)
	}
	return root, device
}

// automount mounts a new autofs in the house and returns its device number.
func (h *house) automount(t *testing.T, path string) uint64 {
	t.Helper()
	root, device := superblock(t)
	h.do(t, func() error {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		return unix.MoveMount(int(root.Fd()), "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH)
	})
	root.Close()
	return device
}

// copyOf copies the autofs with the given number, without its covers.
func (h *house) copyOf(path string, device uint64) (tree *os.File, err error) {
	control, err := autofs.OpenControl()
	if err != nil {
		return nil, err
	}
	defer control.Close()
	err = h.process.InMountNamespace(context.Background(), func(*nsenter.Thread) error {
		root, err := control.OpenMount(path, device)
		if err == nil {
			tree, err = Clone(root)
			root.Close()
		}
		return err
	})
	return tree, err
}

// cover mounts a tmpfs with the file name on the topmost mount at path.
func (h *house) cover(t *testing.T, path, name string) {
	t.Helper()
	h.do(t, func() error { return cover(path, name) })
}

func cover(path, name string) error {
	target, err := openRoot(path)
	if err != nil {
		return err
	}
	defer target.Close()
	fs, err := sys.NewRamfs("cover")
	if err != nil {
		return err
	}
	defer fs.Close()
	for _, dir := range []string{"sub", "sub/auto"} {
		if err := unix.Mkdirat(int(fs.Fd()), dir, 0o755); err != nil {
			return err
		}
	}
	fd, err := unix.Openat(int(fs.Fd()), name, unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = io.WriteString(f, "content of "+name)
	return errors.Join(err, f.Close(), sys.MoveMount(fs, target, ""))
}

// expectFile reads a file in the house.
func (h *house) expectFile(t *testing.T, path string) {
	t.Helper()
	h.do(t, func() error {
		data, err := os.ReadFile(path)
		if want := "content of " + filepath.Base(path); err == nil && string(data) != want {
			err = fmt.Errorf("%s: %q, want %q", path, data, want)
		}
		return err
	})
}

// only returns the single autofs mount at the path.
func (h *house) only(t *testing.T, path string) (*Table, *Mount) {
	t.Helper()
	table := h.table(t)
	var found []*Mount
	for _, m := range table.Autofs() {
		if m.Mountpoint == path {
			found = append(found, m)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d autofs mounts at %s:\n%s", len(found), path, h.text(t))
	}
	return table, found[0]
}

// propagation is the kinds of propagation of a mount, without numbers.
func propagation(m *Mount) string {
	p := PropagationOf(m)
	return fmt.Sprintf("shared %v, slave %v, unbindable %v", p.Shared != 0, p.Master != 0, p.Unbindable)
}
