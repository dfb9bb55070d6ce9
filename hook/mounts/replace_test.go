package mounts

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
)

// replace puts new superblocks in the place of the given ones and checks what
// must hold in every case. It returns the new device numbers.
func replace(t *testing.T, houses []*house, old map[string]uint64) map[string]uint64 {
	t.Helper()
	before := make([]*Table, len(houses))
	var spaces []Space
	for i, h := range houses {
		before[i] = h.table(t)
		spaces = append(spaces, Space{Process: h.process, Table: before[i]})
	}
	fresh := map[string]uint64{}
	var list []*Replacement
	for path, device := range old {
		root, number := superblock(t)
		fresh[path] = number
		list = append(list, &Replacement{Path: path, Old: device, New: root, Device: number})
	}
	slices.SortFunc(list, func(a, b *Replacement) int { return len(a.Path) - len(b.Path) })
	ctx, cancel := context.WithTimeout(context.Background(), testenv.Patience)
	defer cancel()
	if err := Replace(ctx, spaces, list, unannounced); err != nil {
		t.Fatal(err)
	}
	for _, r := range list {
		r.New.Close()
		if r.Err != nil {
			t.Errorf("%s: %v", r.Path, r.Err)
		}
	}
	for i, h := range houses {
		for path, device := range old {
			if m := spaces[i].Table.Find(path, device); m != nil {
				checkReplaced(t, h, before[i], m, fresh[path])
			}
		}
		if was, is := describe(before[i], old, fresh), describe(h.table(t), old, fresh); was != is {
			t.Errorf("namespace %d was\n%s\nis\n%s", i, was, is)
		}
	}
	return fresh
}

// checkReplaced: one new autofs, with the old one's parent, covers and
// propagation.
func checkReplaced(t *testing.T, h *house, before *Table, old *Mount, device uint64) {
	t.Helper()
	table, now := h.only(t, old.Mountpoint)
	if DeviceOf(now) != device || now.ID == old.ID {
		t.Errorf("%s: mount %d of device %s, want device %s", old.Mountpoint, now.ID, DeviceString(DeviceOf(now)), DeviceString(device))
	}
	parent, was := table.ByID(now.Parent), before.ByID(old.Parent)
	if before.ByID(old.Parent).FSType != "autofs" && now.Parent != old.Parent {
		t.Errorf("%s: its parent is %d, was %d", old.Mountpoint, now.Parent, old.Parent)
	}
	if propagation(parent) != propagation(was) {
		t.Errorf("%s: its parent is %s, was %s", old.Mountpoint, propagation(parent), propagation(was))
	}
	if propagation(now) != propagation(old) {
		t.Errorf("%s: it is %s, was %s", old.Mountpoint, propagation(now), propagation(old))
	}
}

// describe writes the mounts of a table: ids of all but the replaced mounts,
// whose devices are left out.
func describe(table *Table, old, fresh map[string]uint64) string {
	var list []string
	for _, m := range table.Mounts {
		id, device := fmt.Sprint(m.ID), DeviceString(DeviceOf(m))
		if d := DeviceOf(m); m.FSType == "autofs" && (d == old[m.Mountpoint] || d == fresh[m.Mountpoint]) {
			id, device = "-", "-"
		}
		list = append(list, fmt.Sprintf("%s %s %s %s %s", m.Mountpoint, m.FSType, id, device, propagation(m)))
	}
	slices.Sort(list)
	return strings.Join(list, "\n")
}

var kinds = map[string]uintptr{"private": unix.MS_PRIVATE, "shared": unix.MS_SHARED}

func eachKind(t *testing.T, test func(t *testing.T, h *house)) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) { test(t, newHouse(t, kind)) })
	}
	// A slave of a group that is not in the container, as runc makes it.
	t.Run("slave", func(t *testing.T) {
		test(t, newHouse(t, unix.MS_SHARED).neighbour(t, unix.MS_SLAVE))
	})
	t.Run("shared slave", func(t *testing.T) {
		h := newHouse(t, unix.MS_SHARED).neighbour(t, unix.MS_SLAVE)
		h.do(t, func() error { return unix.Mount("", h.base, "", unix.MS_SHARED, "") })
		test(t, h)
	})
}

func TestReplaceIdle(t *testing.T) {
	eachKind(t, func(t *testing.T, h *house) {
		path := filepath.Join(h.base, "a b\n\\c")
		replace(t, []*house{h}, map[string]uint64{path: h.automount(t, path)})
	})
}

// TestReplaceCovered: a stack of covers keeps its ids, open files and working
// directories.
func TestReplaceCovered(t *testing.T) {
	eachKind(t, func(t *testing.T, h *house) {
		path := filepath.Join(h.base, "auto")
		old := h.automount(t, path)
		h.cover(t, path, "first")
		lower := h.open(t, filepath.Join(path, "first"))
		h.cover(t, path, "second")
		h.cover(t, filepath.Join(path, "sub"), "nested")
		upper := h.open(t, filepath.Join(path, "sub"))
		replace(t, []*house{h}, map[string]uint64{path: old})
		h.expectFile(t, filepath.Join(path, "second"))
		h.expectFile(t, filepath.Join(path, "sub", "nested"))
		buf := make([]byte, 100)
		if n, err := lower.ReadAt(buf, 0); string(buf[:n]) != "content of first" {
			t.Errorf("an open file of the lower cover: %q, %v", buf[:n], err)
		}
		h.do(t, func() error {
			if err := unix.Fchdir(int(upper.Fd())); err != nil {
				return err
			}
			if cwd, err := os.Getwd(); err != nil || cwd != filepath.Join(path, "sub") {
				return fmt.Errorf("working directory %q, %w", cwd, err)
			}
			_, err := os.Stat("nested")
			return err
		})
	})
}

// open opens a file in the house, for use outside.
func (h *house) open(t *testing.T, path string) *os.File {
	t.Helper()
	var f *os.File
	h.do(t, func() (err error) {
		f, err = os.Open(path)
		return err
	})
	t.Cleanup(func() { f.Close() })
	return f
}

// TestReplaceNested: an automount within a cover of another one, both at once.
func TestReplaceNested(t *testing.T) {
	eachKind(t, func(t *testing.T, h *house) {
		outer := filepath.Join(h.base, "auto")
		inner, plain := filepath.Join(outer, "sub/auto"), filepath.Join(h.base, "plain")
		old := map[string]uint64{outer: h.automount(t, outer)}
		h.cover(t, outer, "outer")
		old[inner] = h.automount(t, inner)
		h.cover(t, inner, "inner")
		old[plain] = h.automount(t, plain)
		replace(t, []*house{h}, old)
		h.expectFile(t, filepath.Join(outer, "outer"))
		h.expectFile(t, filepath.Join(inner, "inner"))
	})
}

// TestReplaceRepeatedly leaves nothing that adds up.
func TestReplaceRepeatedly(t *testing.T) {
	eachKind(t, func(t *testing.T, h *house) {
		path := filepath.Join(h.base, "auto")
		device := h.automount(t, path)
		h.cover(t, path, "cover")
		for range 5 {
			device = replace(t, []*house{h}, map[string]uint64{path: device})[path]
		}
		h.expectFile(t, filepath.Join(path, "cover"))
	})
}

func unannounced([]Place) error { return nil }
