package mounts

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// swap replaces the mounts, in a private copy of the first namespace that ends when the
// thread leaves it.
func (w *workspace) swap(t *nsenter.Thread) error {
	scratch, err := enterScratch(t, w.namespaces[0])
	if err != nil {
		return err
	}
	defer scratch.Close()
	for _, batch := range w.batches() {
		if err := w.swapBatch(scratch, batch); err != nil {
			for _, i := range batch {
				w.list[i].fail(err)
			}
		}
	}
	// Clones of parents leave their peer group before anything on them is
	// unmounted, which would propagate.
	var errs []error
	for _, c := range w.clones {
		errs = append(errs, sys.SetPropagation(c.tree, unix.MS_PRIVATE))
	}
	for _, s := range w.origins {
		if s.peer != nil && !s.replacement.remove {
			errs = append(errs, sys.SetPropagation(s.peer, unix.MS_PRIVATE))
		}
	}
	return errors.Join(errs...)
}

// batches splits the list so that no mount of a batch lies at or below another one in
// it.
func (w *workspace) batches() [][]int {
	var all [][]int
	var batch []int
	paths := map[string]bool{}
	for i, r := range w.list {
		if r.Err != nil {
			continue
		}
		for p := r.Path; ; p = path.Dir(p) {
			if paths[p] {
				all, batch, paths = append(all, batch), nil, map[string]bool{}
				break
			}
			if p == "/" || p == "." {
				break
			}
		}
		batch, paths[r.Path] = append(batch, i), true
	}
	if len(batch) > 0 {
		all = append(all, batch)
	}
	return all
}

// swapBatch replaces mounts of which none lies on another. All dummies are
// unmounted at once: each unmount waits for all processors
// (synchronize_rcu_expedited in namespace_unlock), 100 µs, which is more than
// all the rest for one mount.
func (w *workspace) swapBatch(scratch *os.File, batch []int) error {
	tree, err := sys.CloneTree(scratch, 0)
	if err != nil {
		return err
	}
	defer tree.Close()
	name := "batch" + strconv.Itoa(batch[0])
	if err := mountIn(scratch, name, tree); err != nil {
		return err
	}
	for _, i := range batch {
		r := w.list[i]
		if err := w.mountBeneath(scratch, tree, i, r); err != nil {
			// The new mount leaves its peers: the old mount stays.
			r.fail(fmt.Errorf("replace the mount at %q: %w", r.Path, errors.Join(err, sys.SetPropagation(r.New, unix.MS_PRIVATE))))
		}
	}
	// This unmounts the tree of the batch, the new mounts on it, and the dummies on
	// those; only the last propagates. An unmounted mount leaves its peers
	// (umount_tree).
	if err := sys.DetachAt(scratch, name); err != nil {
		return err
	}
	for _, i := range batch {
		if r := w.list[i]; r.remove && r.Err == nil {
			if err := w.unmountNew(r); err != nil {
				r.fail(fmt.Errorf("remove the mount at %q: %w", r.Path, err))
			}
		}
	}
	return nil
}

// mountBeneath mounts one new mount beneath the old one, and a dummy on a peer of
// it, in the tree of the batch: see Replace.
func (w *workspace) mountBeneath(scratch, tree *os.File, number int, r *Replacement) error {
	if err := mountIn(tree, "new"+strconv.Itoa(number), r.New); err != nil {
		return err
	}
	dummy, err := sys.CloneTree(scratch, 0)
	if err != nil {
		return err
	}
	defer dummy.Close()
	if err := sys.MoveMount(dummy, r.New, ""); err != nil {
		return err
	}
	if err := sys.SetPropagation(r.New, unix.MS_SHARED); err != nil {
		return err
	}
	for i, s := range w.origins {
		if s.replacement == r && s.clone != nil {
			if err := s.mountPeer(scratch, i); err != nil {
				return err
			}
		}
	}
	return nil
}

// unmountNew unmounts the new mount where it was mounted, and so wherever it has
// propagated to: the mounts on it move down.
func (w *workspace) unmountNew(r *Replacement) error {
	for _, s := range w.origins {
		if s.replacement != r || s.peer == nil {
			continue
		}
		if err := sys.DetachAt(s.clone.tree, path.Base(r.Path)); err != nil {
			return err
		}
	}
	return nil
}

// mountPeer mounts a peer of the new mount on the clone of the parent, from where it
// propagates.
func (s *site) mountPeer(scratch *os.File, number int) error {
	peer, err := sys.CloneTree(s.replacement.New, 0)
	if err != nil {
		return err
	}
	s.peer = peer
	if !s.clone.mounted {
		if err := mountIn(scratch, "parent"+strconv.Itoa(number), s.clone.tree); err != nil {
			return err
		}
		s.clone.mounted = true
	}
	return sys.MoveMount(peer, s.clone.tree, path.Base(s.replacement.Path))
}

// enterScratch moves the thread to a private copy of a namespace, and mounts an empty file
// system over its root.
func enterScratch(t *nsenter.Thread, ns *os.File) (scratch *os.File, err error) {
	if scratch, err = sys.NewRamfs("scratch"); err != nil {
		return nil, err
	}
	if err = t.Enter(ns); err == nil {
		err = t.CopyPrivately()
	}
	if err == nil {
		err = mountOverRoot(scratch)
	}
	if err != nil {
		scratch.Close()
		return nil, err
	}
	return scratch, nil
}

func mountOverRoot(tree *os.File) error {
	root, err := openRoot("/")
	if err != nil {
		return err
	}
	defer root.Close()
	return sys.MoveMount(tree, root, "")
}

// mountIn mounts a tree on a new directory.
func mountIn(dir *os.File, name string, tree *os.File) error {
	if err := sys.MkdirAt(dir, name, 0o700); err != nil {
		return err
	}
	return sys.MoveMount(tree, dir, name)
}

// Clone makes a detached, private copy of the mount whose root is open, without the
// mounts on it. The mount is in the namespace of the calling thread.
func Clone(root *os.File) (*os.File, error) {
	tree, err := sys.CloneTree(root, 0)
	if err != nil {
		return nil, err
	}
	if err := sys.SetPropagation(tree, unix.MS_PRIVATE); err != nil {
		tree.Close()
		return nil, err
	}
	return tree, nil
}

// Attach mounts a detached tree on the root of another mount, in the namespace of
// the calling thread.
func Attach(tree, root *os.File) error { return sys.MoveMount(tree, root, "") }
