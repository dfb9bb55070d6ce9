package mounts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Space is a mount namespace: a process in it, and its mount table.
type Space struct {
	Process *nsenter.Process
	Table   *Table
}

// Replacement is a direct or offset autofs mount to be replaced in every namespace that
// shows it.
type Replacement struct {
	Path string
	// Old is the st_dev of the mount to be replaced.
	Old uint64
	// New is the root of the mount that takes its place, detached, and Device
	// its st_dev.
	New    *os.File
	Device uint64
	// remove makes Replace unmount the new mount again, which leaves the mounts on the
	// old one on its parent.
	remove bool
	// Err is set by Replace: why the mount was not replaced, or not everywhere.
	Err error
}

// Replace mounts each replacement in the place of the old mount, beneath its covers, in
// all of the namespaces. The first namespace is the one that must succeed.
//
// No path is without its mount at any time, and the covers keep their mount ids, open
// files and submounts, because mount propagation does the work.
// A detached peer of the parent mount lets the kernel propagate the new mount
// to the place of the old one, where it is tucked beneath it
// (fs/namespace.c, attach_recursive_mnt); then a dummy that is mounted on a
// peer of the new mount is unmounted, which unmounts the old one from the new
// one's root in all namespaces, and moves its covers down (fs/pnode.c,
// propagate_umount). No path walk crosses the old mount.
//
// Parents that propagate nothing are shared during the replacement. The returned error
// concerns all replacements; other errors are in each. Before the first change Replace
// calls announce with what [Undo] needs, after a crash and if Replace fails.
func Replace(ctx context.Context, spaces []Space, list []*Replacement, announce func([]Place) error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("replace autofs mounts: %w", context.Cause(ctx))
	}
	if r := listedTwice(list); r != nil {
		return fmt.Errorf("replace autofs mounts: %q with device %s is listed twice", r.Path, DeviceString(r.Old))
	}
	w := newWorkspace(spaces, list)
	places, err := w.places()
	if err == nil {
		err = announce(places)
	}
	if err != nil {
		return fmt.Errorf("replace autofs mounts: %w", err)
	}
	return w.replace(context.WithoutCancel(ctx)) // an interruption would need an Undo
}

func newWorkspace(spaces []Space, list []*Replacement) *workspace {
	w := &workspace{spaces: spaces, list: list, parents: map[parentKey]*parent{}, clones: map[cloneKey]*clone{}}
	w.locate()
	return w
}

func (w *workspace) replace(ctx context.Context) error {
	defer w.close()
	// Not in the container's namespaces, where the name may be absent or another file.
	control, err := autofs.OpenControl()
	if err != nil {
		return err
	}
	defer control.Close()
	return nsenter.OnThread(ctx, func(t *nsenter.Thread) error {
		if err := w.open(); err != nil {
			return err
		}
		err := w.prepareAll(t)
		if err == nil {
			err = w.swap(t)
		}
		for i := range w.spaces {
			if w.changesIn(i) {
				enterErr := t.Enter(w.namespaces[i])
				if enterErr == nil {
					enterErr = w.restore(i, control)
				}
				err = errors.Join(err, enterErr)
			}
		}
		return err
	})
}

// open opens the namespaces in which something changes, and the first one. A thread must do
// that before it enters one of them. One thread does all the work: to start another takes
// longer than what it has to do.
func (w *workspace) open() error {
	w.namespaces = make([]*os.File, len(w.spaces))
	for i := range w.spaces {
		if i > 0 && !w.changesIn(i) {
			continue
		}
		var err error
		if w.namespaces[i], err = w.spaces[i].Process.OpenMountNamespace(); err != nil {
			return err
		}
	}
	return nil
}

// Shows reports whether the namespace has the autofs mount with the given
// st_dev at the path.
func (s Space) Shows(path string, device uint64) bool {
	m := s.Table.Find(path, device)
	return m != nil && m.FSType == "autofs"
}

func (r *Replacement) fail(err error) {
	if r.Err == nil {
		r.Err = err
	}
}

// mountsIn reports whether Replace mounts something in the namespace itself, not by
// propagation.
func (w *workspace) mountsIn(space int) bool {
	return slices.ContainsFunc(w.origins, func(s *site) bool { return s.space == space })
}

// changesIn reports whether restore has to set the propagation of a mount in the
// namespace.
func (w *workspace) changesIn(space int) bool {
	return w.mountsIn(space) || slices.ContainsFunc(w.sites, func(s *site) bool { return s.space == space && w.leavesPeers(s) })
}

// leavesPeers reports whether the new mount has to leave its peer group because the old
// one was in none. A new mount that propagates to a slave is a slave already.
func (w *workspace) leavesPeers(s *site) bool {
	p := PropagationOf(s.old)
	return p.Shared == 0 && (p.Master == 0 || s.origin)
}

// prepareAll calls prepare in each namespace in which something is mounted.
func (w *workspace) prepareAll(t *nsenter.Thread) error {
	for i := range w.spaces {
		if !w.mountsIn(i) {
			continue
		}
		if err := t.Enter(w.namespaces[i]); err != nil {
			return err
		}
		w.prepare(i)
	}
	return nil
}

// prepare runs in one of the namespaces: it makes the parents shared, and clones them.
func (w *workspace) prepare(space int) {
	for _, s := range w.origins {
		if s.space == space {
			if err := w.prepareOrigin(s); err != nil {
				s.replacement.fail(err)
			}
		}
	}
}

func (w *workspace) prepareOrigin(s *site) error {
	directory := path.Dir(s.replacement.Path)
	key := cloneKey{s.space, s.parent.ID, directory}
	if s.clone = w.clones[key]; s.clone != nil {
		return nil
	}
	if err := w.share(s); err != nil {
		return err
	}
	dir, err := openMount(directory, s.parent.ID)
	if err != nil {
		return err
	}
	defer dir.Close()
	tree, err := sys.CloneTree(dir, 0)
	if err != nil {
		return err
	}
	s.clone = &clone{tree: tree}
	w.clones[key] = s.clone
	return nil
}

// share makes the parent shared, once.
func (w *workspace) share(s *site) error {
	key := parentKey{s.space, s.parent.ID}
	if w.parents[key] != nil {
		return nil
	}
	root, err := openMount(s.parent.Mountpoint, s.parent.ID)
	if err != nil {
		return err
	}
	p := &parent{mount: s.parent, root: root}
	if PropagationOf(s.parent).Shared == 0 {
		if err := sys.SetPropagation(root, unix.MS_SHARED); err != nil {
			root.Close()
			return err
		}
		p.changed = true
	}
	w.parents[key] = p
	return nil
}

// restore runs in one of the namespaces: it restores the propagation of the parents, and
// gives the new mounts that of the old ones.
func (w *workspace) restore(space int, control *autofs.Control) error {
	var errs []error
	for key, p := range w.parents {
		if key.space == space && p.changed {
			errs = append(errs, sys.SetPropagation(p.root, kindOf(PropagationOf(p.mount))))
		}
	}
	for _, s := range w.sites {
		if s.space != space || s.replacement.Err != nil || s.replacement.remove || !w.leavesPeers(s) {
			continue
		}
		root, err := control.OpenMount(s.replacement.Path, s.replacement.Device)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, sys.SetPropagation(root, unix.MS_PRIVATE), root.Close())
	}
	return errors.Join(errs...)
}

func (w *workspace) close() {
	for _, f := range w.namespaces {
		f.Close() // nil for some
	}
	for _, p := range w.parents {
		p.root.Close()
	}
	for _, c := range w.clones {
		c.tree.Close()
	}
	for _, s := range w.origins {
		if s.peer != nil {
			s.peer.Close()
		}
	}
}

// kindOf is the propagation type of a mount that is not shared.
func kindOf(p Propagation) uint64 {
	switch {
	case p.Unbindable:
		return unix.MS_UNBINDABLE
	case p.Master != 0:
		return unix.MS_SLAVE
	}
	return unix.MS_PRIVATE
}
