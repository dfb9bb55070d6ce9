package mounts

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// remove carries out the removal of a mount in all houses.
func remove(t *testing.T, houses []*house, path string, device uint64) {
	t.Helper()
	r, err := NewRemoval(path, device)
	if err != nil {
		t.Fatal(err)
	}
	defer r.New.Close()
	var spaces []Space
	for _, h := range houses {
		spaces = append(spaces, h.space(t))
	}
	if err := errors.Join(Replace(context.Background(), spaces, []*Replacement{r}, unannounced), r.Err); err != nil {
		t.Fatal(err)
	}
}

// TestRemoval removes a mount beneath its covers, in namespaces of each
// kind of propagation.
func TestRemoval(t *testing.T) {
	for name, propagation := range map[string][2]uintptr{
		"peers": {unix.MS_SHARED, 0}, "slave": {unix.MS_SHARED, unix.MS_SLAVE}, "private copy": {unix.MS_SHARED, unix.MS_PRIVATE},
		"private": {unix.MS_PRIVATE, 0},
	} {
		for _, covers := range []int{0, 1, 2} {
			t.Run(name, func(t *testing.T) {
				h := newHouse(t, propagation[0])
				path := filepath.Join(h.base, "auto")
				device := h.automount(t, path)
				for i := range covers {
					h.cover(t, path, []string{"first", "second"}[i])
				}
				houses := []*house{h, h.neighbour(t, propagation[1])}
				remove(t, houses, path, device)
				for _, each := range houses {
					table := each.table(t)
					if table.Find(path, device) != nil || len(table.Leftovers()) != 0 {
						t.Errorf("it is not gone, or %d mounts are left:\n%s", len(table.Leftovers()), each.text(t))
					}
					if covers > 0 {
						each.expectFile(t, filepath.Join(path, []string{"first", "second"}[covers-1]))
					}
				}
			})
		}
	}
}

// TestRemovalTwice: a mount that is listed twice is an error, and the cover stays.
func TestRemovalTwice(t *testing.T) {
	h := newHouse(t, unix.MS_SHARED)
	path := filepath.Join(h.base, "auto")
	device := h.automount(t, path)
	h.cover(t, path, "cover")
	var list []*Replacement
	for range 2 {
		r, err := NewRemoval(path, device)
		if err != nil {
			t.Fatal(err)
		}
		defer r.New.Close()
		list = append(list, r)
	}
	err := Replace(t.Context(), []Space{h.space(t)}, list, func([]Place) error {
		t.Error("announced")
		return nil
	})
	if err == nil {
		t.Error("no error")
	}
	h.expectFile(t, filepath.Join(path, "cover"))
	if h.table(t).Find(path, device) == nil {
		t.Errorf("it is gone:\n%s", h.text(t))
	}
}

// TestFills finds what an interrupted removal has left, and takes it away.
func TestFills(t *testing.T) {
	h := newHouse(t, unix.MS_SHARED)
	path := filepath.Join(h.base, "auto")
	device := h.automount(t, path)
	h.cover(t, path, "cover")
	r, err := NewRemoval(path, device)
	if err != nil {
		t.Fatal(err)
	}
	defer r.New.Close()
	interrupted := *r
	interrupted.remove = false
	if err := errors.Join(Replace(context.Background(), []Space{h.space(t)}, []*Replacement{&interrupted}, unannounced), interrupted.Err); err != nil {
		t.Fatal(err)
	}
	fills := h.table(t).Leftovers()
	if len(fills) != 1 || fills[0].Mountpoint != path {
		t.Fatalf("%d mounts are left:\n%s", len(fills), h.text(t))
	}
	remove(t, []*house{h}, path, DeviceOf(fills[0]))
	if n := len(h.table(t).Leftovers()); n != 0 {
		t.Errorf("%d mounts are left", n)
	}
	h.expectFile(t, filepath.Join(path, "cover"))
}

// TestAwait: it returns when a mount appears, and at the end of its time.
func TestAwait(t *testing.T) {
	h := newHouse(t, unix.MS_PRIVATE)
	path := filepath.Join(h.base, "auto")
	device := h.automount(t, path)
	covered := func(table *Table) bool { return table.LowestCover(table.Find(path, device)) != nil }
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	table, err := Await(ctx, h.process, covered)
	if !errors.Is(err, context.DeadlineExceeded) || table == nil {
		t.Errorf("%v, %v", table, err)
	}
	found := make(chan error, 1)
	go func() {
		_, err := Await(context.Background(), h.process, covered)
		found <- err
	}()
	h.cover(t, path, "cover")
	select {
	case err := <-found:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("the mount was not seen")
	}
}

// TestDetachTree takes a mount away with all that is on it, if it is still the same.
func TestDetachTree(t *testing.T) {
	h := newHouse(t, unix.MS_PRIVATE)
	path := filepath.Join(h.base, "key")
	h.do(t, func() error { return os.Mkdir(path, 0o755) })
	h.cover(t, path, "bottom")
	inner := filepath.Join(path, "sub")
	h.cover(t, inner, "inner")
	var bottom *Mount
	for _, m := range h.table(t).Mounts {
		if m.Mountpoint == path {
			bottom = m
		}
	}
	other := *bottom
	other.ID++
	h.do(t, func() error {
		if err := DetachTree(&other); err == nil {
			t.Error("another mount was detached")
		}
		return nil
	})
	h.expectFile(t, filepath.Join(inner, "inner"))
	h.do(t, func() error { return DetachTree(bottom) })
	for _, m := range h.table(t).Mounts {
		if m.Mountpoint == path || m.Mountpoint == inner {
			t.Errorf("%s is still there", m.Mountpoint)
		}
	}
}
