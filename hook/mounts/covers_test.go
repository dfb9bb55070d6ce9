package mounts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
)

// renew does to an automount what systemd does when its unit restarts: all
// that is mounted there is detached, and a new autofs mounted.
func (h *house) renew(t *testing.T, path string) uint64 {
	t.Helper()
	h.do(t, func() error {
		for range 10 {
			if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
				if errors.Is(err, unix.EINVAL) {
					return nil // nothing is mounted there any more
				}
				return err
			}
		}
		return fmt.Errorf("%s: more mounts than expected", path)
	})
	return h.automount(t, path)
}

// covering lists the mounts on an autofs mount: file system and place.
func covering(table *Table, m *Mount) []string {
	var list []string
	for _, c := range table.Descendants(m) {
		list = append(list, c.FSType+" "+c.Mountpoint)
	}
	slices.Sort(list)
	return list
}

// TestKeep: a stack of two covers, and what is mounted in them, comes back
// after the automount was renewed, with its files.
func TestKeep(t *testing.T) {
	eachKind(t, func(t *testing.T, h *house) {
		ctx := context.Background()
		path := filepath.Join(h.base, "a b")
		old := h.automount(t, path)
		h.cover(t, path, "first")
		lower := h.open(t, path)
		h.cover(t, filepath.Join(path, "sub"), "below")
		h.cover(t, path, "second")
		h.cover(t, filepath.Join(path, "sub"), "nested")
		table, m := h.only(t, path)
		want, before := covering(table, m), h.text(t)

		kept, err := CopyCovers(ctx, h.process, path, old)
		if err != nil {
			t.Fatal(err)
		}
		defer kept.Close()
		if now := h.text(t); now != before {
			t.Errorf("keeping changed the mounts:\n%s\nbecame\n%s", before, now)
		}
		fresh := h.renew(t, path)
		// A later run continues with the open namespace.
		resumed := OpenCovers(path, old, kept.Namespace())
		if err := resumed.Restore(ctx, h.process, fresh); err != nil {
			t.Fatal(err)
		}
		table, m = h.only(t, path)
		if got := covering(table, m); !slices.Equal(got, want) || DeviceOf(m) != fresh {
			t.Errorf("covered by %q, want %q\n%s", got, want, h.text(t))
		}
		// A run that was killed had put back the lower one only; or all.
		for _, lost := range []bool{true, false} {
			if lost {
				h.do(t, func() error { return unix.Unmount(path, unix.MNT_DETACH) })
			}
			if err := resumed.Restore(ctx, h.process, fresh); err != nil {
				t.Fatal(err)
			}
			table, m = h.only(t, path)
			if got := covering(table, m); !slices.Equal(got, want) {
				t.Errorf("one more time: covered by %q, want %q", got, want)
			}
		}
		h.expectFile(t, filepath.Join(path, "second"))
		h.expectFile(t, filepath.Join(path, "sub/nested"))
		// The lower cover is the same file system, with what is below it.
		if stack := table.Covers(m); len(stack) == 2 {
			var st unix.Stat_t
			if err := unix.Fstat(int(lower.Fd()), &st); err != nil || st.Dev != DeviceOf(stack[0]) {
				t.Errorf("lower cover is device %s, want %s, %v", DeviceString(DeviceOf(stack[0])), DeviceString(st.Dev), err)
			}
		}
		// What was put back outlives what was kept.
		if err := kept.Close(); err != nil {
			t.Error(err)
		}
		h.expectFile(t, filepath.Join(path, "sub/nested"))
	})
}

// TestPutBackChecks: nothing is mounted on what is not the expected autofs.
func TestPutBackChecks(t *testing.T) {
	h := newHouse(t, unix.MS_PRIVATE)
	ctx := context.Background()
	path := filepath.Join(h.base, "auto")
	old := h.automount(t, path)
	h.cover(t, path, "cover")
	for name, test := range map[string]struct {
		path string
		old  uint64
		onto func(fresh uint64) uint64
		want error
	}{
		"another device below": {path, old, func(f uint64) uint64 { return f + 1000 }, ErrChanged},
		"another device kept":  {path, old + 1000, func(f uint64) uint64 { return f }, ErrChanged},
		"another path":         {path + "-absent", old, func(f uint64) uint64 { return f }, ErrChanged},
	} {
		kept, err := CopyCovers(ctx, h.process, test.path, test.old)
		if err != nil {
			t.Fatal(err)
		}
		before := h.text(t)
		if err := kept.Restore(ctx, h.process, test.onto(old)); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
		if now := h.text(t); now != before {
			t.Errorf("%s: %s\nbecame\n%s", name, before, now)
		}
		kept.Close()
	}
}

// TestReplaceRefuses: what is not there is not replaced, and nothing changes.
func TestReplaceRefuses(t *testing.T) {
	h := newHouse(t, unix.MS_SHARED)
	path := filepath.Join(h.base, "auto")
	old := h.automount(t, path)
	good := filepath.Join(h.base, "good")
	goodOld := h.automount(t, good)
	root, fresh := superblock(t)
	other, otherFresh := superblock(t)
	list := []*Replacement{
		{Path: path, Old: old + 1000, New: root, Device: fresh},
		{Path: good, Old: goodOld, New: other, Device: otherFresh},
	}
	if err := Replace(context.Background(), []Space{h.space(t)}, list, unannounced); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(list[0].Err, ErrChanged) || list[1].Err != nil {
		t.Errorf("errors %v, %v", list[0].Err, list[1].Err)
	}
	if _, m := h.only(t, path); DeviceOf(m) != old {
		t.Error("the wrong mount was replaced")
	}
	if _, m := h.only(t, good); DeviceOf(m) != otherFresh {
		t.Error("the other one was not replaced")
	}
	if err := Replace(context.Background(), []Space{h.space(t)}, nil, unannounced); err != nil {
		t.Errorf("nothing to replace: %v", err)
	}
}

// TestClone copies the autofs beneath its cover.
func TestClone(t *testing.T) {
	h := newHouse(t, unix.MS_SHARED)
	path := filepath.Join(h.base, "auto")
	device := h.automount(t, path)
	h.cover(t, path, "cover")
	before := h.text(t)
	tree, err := h.copyOf(path, device)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	if got, err := autofs.Device(tree); err != nil || got != device {
		t.Errorf("device %d, %v", got, err)
	}
	if _, err := h.copyOf(path, device+1000); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("another device: %v", err)
	}
	if now := h.text(t); now != before {
		t.Errorf("%s\nbecame\n%s", before, now)
	}
}
