package mounts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// until is how far a Replace comes before it is abandoned, as by a kill.
type until int

const (
	shared  until = iota // the parents are shared
	beneath              // the new mounts are beneath the old ones
	swapped              // the old ones are gone
)

func (u until) String() string { return []string{"shared", "beneath", "swapped"}[u] }

// abandon begins to replace a mount and stops.
func abandon(t *testing.T, spaces []Space, r *Replacement, stop until) []Place {
	t.Helper()
	ctx := context.Background()
	w := newWorkspace(spaces, []*Replacement{r})
	defer w.close()
	places, err := w.places()
	if err != nil {
		t.Fatal(err)
	}
	err = nsenter.OnThread(ctx, func(thread *nsenter.Thread) error {
		if err := errors.Join(w.open(), w.prepareAll(thread), r.Err); err != nil {
			return err
		}
		switch stop {
		case beneath:
			return mountBeneathOnly(thread, w, r)
		case swapped:
			return w.swap(thread)
		case shared:
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return places
}

// mountBeneathOnly is swap without unmounting the old mount.
func mountBeneathOnly(thread *nsenter.Thread, w *workspace, r *Replacement) error {
	scratch, err := enterScratch(thread, w.namespaces[0])
	if err != nil {
		return err
	}
	defer scratch.Close()
	if err := mountIn(scratch, "new", r.New); err != nil {
		return err
	}
	if err := sys.SetPropagation(r.New, unix.MS_SHARED); err != nil {
		return err
	}
	for i, s := range w.origins {
		if err := s.mountPeer(scratch, i); err != nil {
			return err
		}
	}
	return nil
}

// TestUndo abandons a Replace at each of its steps, in namespaces of each kind,
// and undoes it.
func TestUndo(t *testing.T) {
	for name, kinds := range map[string][3]uintptr{
		"shared, peers":         {unix.MS_SHARED, 0, 0},
		"shared, its slave":     {unix.MS_SHARED, unix.MS_SLAVE, unix.MS_PRIVATE},
		"private":               {unix.MS_PRIVATE, 0, 0},
		"private, a slave's":    {unix.MS_SHARED, unix.MS_PRIVATE, unix.MS_PRIVATE},
		"private, and its copy": {unix.MS_PRIVATE, unix.MS_PRIVATE, unix.MS_SLAVE},
	} {
		for _, covers := range []int{0, 2} {
			for _, stop := range []until{shared, beneath, swapped} {
				t.Run(fmt.Sprintf("%s, %d covers, %s", name, covers, stop), func(t *testing.T) { undo(t, kinds, covers, stop) })
			}
		}
	}
}

func undo(t *testing.T, kinds [3]uintptr, covers int, stop until) {
	h := newHouse(t, kinds[0])
	path := filepath.Join(h.base, "auto")
	old := map[string]uint64{path: h.automount(t, path)}
	for i := range covers {
		h.cover(t, path, "cover"+strconv.Itoa(i))
	}
	houses := []*house{h, h.neighbour(t, kinds[1]), h.neighbour(t, kinds[2])}
	var spaces []Space
	for _, each := range houses {
		spaces = append(spaces, each.space(t))
	}
	root, device := superblock(t)
	fresh := map[string]uint64{path: device}
	places := abandon(t, spaces, &Replacement{Path: path, Old: old[path], New: root, Device: device}, stop)
	root.Close()
	if stop == beneath {
		for i, each := range houses {
			if n := len(slices.DeleteFunc(each.table(t).Autofs(), func(m *Mount) bool { return m.Mountpoint != path })); n != 2 {
				t.Errorf("namespace %d has %d autofs mounts at the path, want 2: this test shows nothing", i, n)
			}
		}
	}
	text, err := json.Marshal(places)
	if err != nil {
		t.Fatal(err)
	}
	var read []Place
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	undone, err := Undo(context.Background(), spaces, read)
	if err != nil {
		t.Fatal(err)
	}
	changed := stop == beneath || kinds[0] != unix.MS_SHARED || kinds[2] == unix.MS_PRIVATE
	if undone != changed {
		t.Errorf("undone: %v, want %v", undone, changed)
	}
	for i, each := range houses {
		if was, is := describe(spaces[i].Table, old, fresh), describe(each.table(t), old, fresh); was != is {
			t.Errorf("namespace %d was\n%s\nis\n%s", i, was, is)
		}
		want := old[path]
		if stop == swapped {
			want = device
		}
		if _, m := each.only(t, path); DeviceOf(m) != want {
			t.Errorf("namespace %d has device %s, want %s", i, DeviceString(DeviceOf(m)), DeviceString(want))
		}
	}
	if undone, err := Undo(context.Background(), spaces, read); undone || err != nil {
		t.Errorf("a second time: undone %v, %v", undone, err)
	}
}
