package mounts

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Kept is what covered an autofs mount, kept in a mount namespace of our own
// while the master renews that mount. It holds copies: whatever happens to the
// originals, the file systems stay mounted, with everything mounted below them.
type Kept struct {
	// Path and Device name the autofs mount that was covered.
	Path      string
	Device    uint64
	namespace *os.File
}

// Keep copies the mount namespace of the process, so that what covers the
// autofs mount with the given path and st_dev outlives that mount. Nothing is
// changed that the container can see.
func Keep(ctx context.Context, p *nsenter.Process, path string, device uint64) (*Kept, error) {
	ns, err := p.CopyMountNamespace(context.WithoutCancel(ctx))
	if err != nil {
		return nil, fmt.Errorf("keep what covers %q: %w", path, err)
	}
	return Resume(path, device, ns), nil
}

// Resume continues with a namespace that Keep made in an earlier run.
func Resume(path string, device uint64, namespace *os.File) *Kept {
	return &Kept{Path: path, Device: device, namespace: namespace}
}

// Namespace is the mount namespace that holds the copies. They exist for as
// long as it is open somewhere.
func (k *Kept) Namespace() *os.File { return k.namespace }

// Close closes the copies. What was put back stays.
func (k *Kept) Close() error { return k.namespace.Close() }

// PutBack mounts copies of what was kept on the mount that is now at the path
// in the mount namespace of the process. That must be the autofs mount with
// the device number onto. Lower ones that a run has put back which was killed
// then are left; if something else covers the mount, the error is ErrChanged.
func (k *Kept) PutBack(ctx context.Context, p *nsenter.Process, onto uint64) error {
	ctx = context.WithoutCancel(ctx) // what starts here must be finished
	copies, devices, err := k.take(ctx)
	defer func() {
		for _, f := range copies {
			f.Close()
		}
	}()
	if err != nil {
		return fmt.Errorf("put back what covered %q: %w", k.Path, err)
	}
	err = p.InMountNamespace(ctx, func(t *nsenter.Thread) error {
		there, err := stackAt(t, k.Path, onto)
		if err != nil {
			return err
		}
		for i, m := range there {
			if i >= len(devices) || DeviceOf(m) != devices[i] {
				return fmt.Errorf("something else is mounted there (unmount it, and repair again): %w", ErrChanged)
			}
			onto = devices[i]
		}
		target, err := openRoot(k.Path)
		if err != nil {
			return err
		}
		defer target.Close()
		if err := checkDevice(target, k.Path, onto); err != nil {
			return err
		}
		for _, tree := range copies[len(there):] {
			if err := attach(tree, target, k.Path); err != nil {
				return err
			}
			target = tree
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("put back what covered %q: %w", k.Path, err)
	}
	return nil
}

// take copies the mounts over the autofs mount out of the namespace, the lowest
// first, each with everything that is mounted below it. Only the topmost mount
// of a stack can be reached by a path, so each is detached once it is copied: in
// a copy of the namespace that ends with the thread, so that nothing is lost if
// the copies cannot be put back.
func (k *Kept) take(ctx context.Context) (copies []*os.File, devices []uint64, err error) {
	err = nsenter.InNamespaceFile(ctx, k.namespace, func(t *nsenter.Thread) error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("copy the kept mounts: %w", os.NewSyscallError("unshare", err))
		}
		stack, err := stackAt(t, k.Path, k.Device)
		if err != nil {
			return err
		}
		for _, m := range stack {
			devices = append(devices, DeviceOf(m))
		}
		copies = make([]*os.File, len(stack))
		for i := len(stack) - 1; i >= 0; i-- {
			if copies[i], err = takeTopmost(k.Path, stack[i].ID); err != nil {
				return err
			}
		}
		return nil
	})
	return compact(copies), devices, err
}

// stackAt finds what covers the autofs mount in the namespace of the thread.
func stackAt(t *nsenter.Thread, path string, device uint64) ([]*Mount, error) {
	f, err := t.OpenProc("mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	table, err := Read(f)
	if err != nil {
		return nil, err
	}
	for _, m := range table.Autofs() {
		if m.Mountpoint == path && DeviceOf(m) == device {
			return table.Stack(m), nil
		}
	}
	return nil, fmt.Errorf("%q: no autofs mount %s: %w", path, DeviceString(device), ErrChanged)
}

func takeTopmost(path string, id int) (*os.File, error) {
	root, err := openRoot(path)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if err := checkID(root, path, id); err != nil {
		return nil, err
	}
	fd, err := unix.OpenTree(int(root.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|
		unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
	if err != nil {
		return nil, mountError("copy", path, "open_tree", err)
	}
	tree := os.NewFile(uintptr(fd), path)
	if err := detach(root, path); err != nil {
		tree.Close()
		return nil, err
	}
	return tree, nil
}

func compact(files []*os.File) []*os.File {
	var kept []*os.File
	for _, f := range files {
		if f != nil {
			kept = append(kept, f)
		}
	}
	return kept
}
