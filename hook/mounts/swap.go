package mounts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// swap does the replacing, in a private copy of the first namespace that ends
// with it.
func (w *workspace) swap(ctx context.Context) error {
	desk, err := newDesk()
	if err != nil {
		return err
	}
	defer desk.Close()
	ns, err := w.spaces[0].Process.CopyMountNamespace(ctx)
	if err != nil {
		return err
	}
	defer ns.Close()
	return nsenter.InNamespaceFile(ctx, ns, func(*nsenter.Thread) error {
		if err := placeDesk(desk); err != nil {
			return err
		}
		for _, batch := range w.batches() {
			if err := w.swapBatch(desk, batch); err != nil {
				for _, i := range batch {
					w.list[i].fail(err)
				}
			}
		}
		// Clones of parents leave their peer group before anything of them is
		// unmounted: that would propagate.
		var errs []error
		for _, c := range w.clones {
			errs = append(errs, setPropagation(c.tree, unix.MS_PRIVATE))
		}
		for _, t := range w.targets {
			if t.peer != nil && !t.replacement.remove {
				errs = append(errs, setPropagation(t.peer, unix.MS_PRIVATE))
			}
		}
		return errors.Join(errs...)
	})
}

// batches parts the list so that no mount of a batch lies at or below another
// one of it.
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
func (w *workspace) swapBatch(desk *os.File, batch []int) error {
	stage, err := cloneTree(desk, "stage")
	if err != nil {
		return err
	}
	defer stage.Close()
	name := "stage" + strconv.Itoa(batch[0])
	if err := place(stage, desk, name); err != nil {
		return err
	}
	for _, i := range batch {
		r := w.list[i]
		if err := w.tuck(desk, stage, i, r); err != nil {
			// It leaves its peers: the old mount stays.
			r.fail(errors.Join(err, setPropagation(r.New, unix.MS_PRIVATE)))
		}
	}
	// What is unmounted are the stage, the new mounts on it, and the dummies on
	// those; only the last propagates. Whatever is unmounted leaves its peers
	// (umount_tree).
	if err := unix.Fchdir(int(desk.Fd())); err != nil {
		return mountError("unmount", name, "fchdir", err)
	}
	if err := unix.Unmount(name, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return mountError("unmount", name, "umount2", err)
	}
	for _, i := range batch {
		if r := w.list[i]; r.remove && r.Err == nil {
			if err := w.takeAway(r); err != nil {
				r.fail(err)
			}
		}
	}
	return nil
}

// tuck mounts one new mount beneath the old one, and a dummy on a peer of it,
// on the stage: see Replace.
func (w *workspace) tuck(desk, stage *os.File, number int, r *Replacement) error {
	name := "new" + strconv.Itoa(number)
	if err := place(r.New, stage, name); err != nil {
		return err
	}
	dummy, err := cloneTree(desk, "dummy")
	if err != nil {
		return err
	}
	defer dummy.Close()
	if err := attach(dummy, r.New, name); err != nil {
		return err
	}
	if err := setPropagation(r.New, unix.MS_SHARED); err != nil {
		return err
	}
	for i, t := range w.targets {
		if t.replacement == r && t.clone != nil {
			if err := w.tuckTarget(desk, i, t); err != nil {
				return err
			}
		}
	}
	return nil
}

// takeAway unmounts the new mount where it was mounted, and so wherever it has
// propagated to: what lies on it moves down.
func (w *workspace) takeAway(r *Replacement) error {
	for _, t := range w.targets {
		if t.replacement != r || t.peer == nil {
			continue
		}
		if err := unix.Fchdir(int(t.clone.tree.Fd())); err != nil {
			return mountError("take away what is beneath", r.Path, "fchdir", err)
		}
		if err := unix.Unmount(path.Base(r.Path), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return mountError("take away what is beneath", r.Path, "umount2", err)
		}
	}
	return nil
}

func (w *workspace) tuckTarget(desk *os.File, number int, t *target) error {
	peer, err := cloneTree(t.replacement.New, t.replacement.Path)
	if err != nil {
		return err
	}
	t.peer = peer
	if !t.clone.placed {
		if err := place(t.clone.tree, desk, "parent"+strconv.Itoa(number)); err != nil {
			return err
		}
		t.clone.placed = true
	}
	base := path.Base(t.replacement.Path)
	err = unix.MoveMount(int(peer.Fd()), "", int(t.clone.tree.Fd()), base, unix.MOVE_MOUNT_F_EMPTY_PATH)
	return mountError("mount", t.replacement.Path, "move_mount", err)
}

// newDesk makes an empty file system to work on, as a detached mount.
func newDesk() (*os.File, error) {
	fs, err := unix.Fsopen("ramfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("file system to work on: %w", os.NewSyscallError("fsopen", err))
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, fmt.Errorf("file system to work on: %w", os.NewSyscallError("fsconfig", err))
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("file system to work on: %w", os.NewSyscallError("fsmount", err))
	}
	return os.NewFile(uintptr(fd), "desk"), nil
}

// placeDesk mounts the desk over the root of a namespace of our own.
func placeDesk(desk *os.File) error {
	root, err := openRoot("/")
	if err != nil {
		return err
	}
	defer root.Close()
	return attach(desk, root, "/")
}

// place mounts a tree on a new directory of the desk.
func place(tree, desk *os.File, name string) error {
	if err := unix.Mkdirat(int(desk.Fd()), name, 0o700); err != nil {
		return mountError("make a mount point for", name, "mkdirat", err)
	}
	err := unix.MoveMount(int(tree.Fd()), "", int(desk.Fd()), name, unix.MOVE_MOUNT_F_EMPTY_PATH)
	return mountError("mount", name, "move_mount", err)
}

// cloneTree makes a detached copy of the mount, from the open directory on,
// without what is mounted on it.
func cloneTree(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.OpenTree(int(dir.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return nil, mountError("copy", name, "open_tree", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Clone makes a detached, private copy of the mount whose root is open, without
// what covers it. The mount is in the namespace of the calling thread.
func Clone(root *os.File) (*os.File, error) {
	tree, err := cloneTree(root, root.Name())
	if err != nil {
		return nil, err
	}
	if err := setPropagation(tree, unix.MS_PRIVATE); err != nil {
		tree.Close()
		return nil, err
	}
	return tree, nil
}

// Attach mounts a detached tree on the root of another mount, in the namespace of
// the calling thread.
func Attach(tree, root *os.File) error { return attach(tree, root, root.Name()) }

// setPropagation changes the propagation of the mount whose root is open
// (mount_setattr(2), Linux 5.12).
func setPropagation(root *os.File, kind uint64) error {
	err := unix.MountSetattr(int(root.Fd()), "", unix.AT_EMPTY_PATH, &unix.MountAttr{Propagation: kind})
	return mountError("set the propagation of", root.Name(), "mount_setattr", err)
}
