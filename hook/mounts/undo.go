package mounts

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Place is where a [Replace] is about to change something, in one namespace: what a
// later run needs to undo an interrupted one.
type Place struct {
	Namespace uint64 `json:"namespace"` // inode number
	Path      string `json:"path"`
	// Old and New are the st_dev of the mounts.
	Old uint64 `json:"old"`
	New uint64 `json:"new"`
	// Parent is the id of the mount that the old one lies on, and Kind the propagation
	// to restore there (MS_PRIVATE, MS_SLAVE, MS_UNBINDABLE), 0 if it is unchanged.
	Parent int    `json:"parent"`
	Kind   uint64 `json:"kind"`
	// LeavesPeers is whether the new mount must be in no peer group.
	LeavesPeers bool `json:"apart"`
}

// places lists what the workspace will change.
func (w *workspace) places() ([]Place, error) {
	var list []Place
	inodes := map[int]uint64{} // by the index of a space
	for _, s := range w.sites {
		if inodes[s.space] == 0 {
			id, err := w.spaces[s.space].Process.Namespace("mnt")
			if err != nil {
				return nil, err
			}
			inodes[s.space] = id.Inode
		}
		p := Place{
			Namespace: inodes[s.space], Path: s.replacement.Path, Old: s.replacement.Old, New: s.replacement.Device,
			Parent: s.parent.ID, LeavesPeers: w.leavesPeers(s),
		}
		if propagation := PropagationOf(s.parent); propagation.Shared == 0 {
			p.Kind = kindOf(propagation)
		}
		list = append(list, p)
	}
	return list, nil
}

// maxBeneath bounds how many mounts are removed beneath an old one: that of the
// interrupted run, and one for each interrupted Undo.
const maxBeneath = 8

// Undo rolls an interrupted Replace back. The kernel unmounts all old mounts of one
// path at once: a path has its new mount everywhere, which stays, or the old one
// everywhere, beneath which the new one may lie. It reports whether there was anything
// to undo.
func Undo(ctx context.Context, spaces []Space, places []Place) (undone bool, err error) {
	ctx = context.WithoutCancel(ctx)
	byNamespace := map[uint64]Space{}
	for _, s := range spaces {
		if id, err := s.Process.Namespace("mnt"); err == nil {
			byNamespace[id.Inode] = s
		}
	}
	control, err := autofs.OpenControl() // not in the container's namespaces
	if err != nil {
		return false, err
	}
	defer control.Close()
	var errs []error
	each := func(f func(*Table, Place) (bool, error)) {
		for _, p := range places {
			s, known := byNamespace[p.Namespace]
			if !known {
				continue // it ended, and its mounts with it
			}
			table, err := Of(s.Process)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			errs = append(errs, s.Process.InMountNamespace(ctx, func(*nsenter.Thread) error {
				did, err := f(table, p)
				undone = undone || did
				return err
			}))
		}
	}
	each(undoParent)
	for range maxBeneath {
		did, err := removeBeneath(ctx, byNamespace, places)
		errs = append(errs, err)
		undone = undone || did
		if !did || err != nil {
			break
		}
	}
	each(func(t *Table, p Place) (bool, error) { return undoPeers(control, t, p) })
	return undone, errors.Join(errs...)
}

// undoParent restores the propagation of the parent of a place.
func undoParent(table *Table, p Place) (bool, error) {
	parent := table.ByID(p.Parent)
	if parent == nil || p.Kind == 0 || PropagationOf(parent).Shared == 0 {
		return false, nil
	}
	root, err := openMount(parent.Mountpoint, parent.ID)
	if err != nil {
		return false, err
	}
	defer root.Close()
	return true, sys.SetPropagation(root, p.Kind)
}

// undoPeers removes a new mount from its peer group.
func undoPeers(control *autofs.Control, table *Table, p Place) (bool, error) {
	now := table.Find(p.Path, p.New)
	if now == nil || !p.LeavesPeers || PropagationOf(now).Shared == 0 {
		return false, nil
	}
	root, err := control.OpenMount(p.Path, p.New)
	if err != nil {
		return false, err
	}
	defer root.Close()
	return true, sys.SetPropagation(root, unix.MS_PRIVATE)
}

// removeBeneath removes the lowest mount beneath the old one, at each path that has
// one, in all namespaces.
func removeBeneath(ctx context.Context, byNamespace map[uint64]Space, places []Place) (bool, error) {
	type key struct {
		path   string
		device uint64
	}
	found := map[key][]Space{}
	for _, p := range places {
		s, known := byNamespace[p.Namespace]
		if !known {
			continue
		}
		var err error
		if s.Table, err = Of(s.Process); err != nil {
			return false, err
		}
		if m := s.Table.beneath(p); m != nil {
			k := key{p.Path, DeviceOf(m)}
			found[k] = append(found[k], s)
		}
	}
	var errs []error
	for k, spaces := range found {
		r, err := NewRemoval(k.path, k.device)
		if err != nil {
			return false, err
		}
		err = newWorkspace(spaces, []*Replacement{r}).replace(ctx)
		if err = errors.Join(err, r.Err, r.New.Close()); err != nil {
			errs = append(errs, fmt.Errorf("remove the mount beneath %q: %w", k.path, err))
		}
	}
	return len(found) > 0, errors.Join(errs...)
}

// beneath returns the lowest mount at the place if the old one lies on it.
func (t *Table) beneath(p Place) *Mount {
	for _, m := range t.children[p.Parent] {
		if m.Mountpoint != p.Path || DeviceOf(m) == p.Old {
			continue
		}
		for _, over := range t.Covers(m) {
			if over.FSType == "autofs" && DeviceOf(over) == p.Old { // another mount may have its number now
				return m
			}
		}
	}
	return nil
}
