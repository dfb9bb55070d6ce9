package mounts

import (
	"context"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Covers holds copies of the covers of an autofs mount, in a mount namespace of our own,
// while the master recreates that mount. The file systems stay mounted whatever happens
// to the originals, with everything mounted below them.
type Covers struct {
	// Path and Device name the autofs mount that was covered.
	Path      string
	Device    uint64
	namespace *os.File
}

// CopyCovers copies the mount namespace of the process, so that the covers of the autofs mount
// with the given path and st_dev outlive that mount. The container sees no change.
func CopyCovers(ctx context.Context, p *nsenter.Process, path string, device uint64) (*Covers, error) {
	ns, err := p.CopyMountNamespace(context.WithoutCancel(ctx))
	if err != nil {
		return nil, fmt.Errorf("copy the covers of %q: %w", path, err)
	}
	return OpenCovers(path, device, ns), nil
}

// OpenCovers continues with a namespace that CopyCovers made in an earlier run.
func OpenCovers(path string, device uint64, namespace *os.File) *Covers {
	return &Covers{Path: path, Device: device, namespace: namespace}
}

// Namespace is the mount namespace that holds the copies. They exist for as
// long as it is open somewhere.
func (c *Covers) Namespace() *os.File { return c.namespace }

// Close closes the copies. Covers that were put back stay mounted.
func (c *Covers) Close() error { return c.namespace.Close() }

// Restore mounts the covers on the mount that is now at the path in the mount namespace
// of the process, which must be the autofs mount with the device number onto. It leaves
// the lower covers that an interrupted run has put back; if anything else covers the
// mount, the error is ErrChanged.
func (c *Covers) Restore(ctx context.Context, p *nsenter.Process, onto uint64) error {
	ctx = context.WithoutCancel(ctx) // finish it, or covers are missing
	copies, devices, err := c.take(ctx)
	defer func() {
		for _, f := range copies {
			f.Close()
		}
	}()
	if err != nil {
		return fmt.Errorf("put back the covers of %q: %w", c.Path, err)
	}
	err = p.InMountNamespace(ctx, func(t *nsenter.Thread) error {
		there, err := stackAt(t, c.Path, onto)
		if err != nil {
			return err
		}
		for i, m := range there {
			if i >= len(devices) || DeviceOf(m) != devices[i] {
				return fmt.Errorf("another mount is there (unmount it, and repair again): %w", ErrChanged)
			}
			onto = devices[i]
		}
		target, err := openRoot(c.Path)
		if err != nil {
			return err
		}
		defer target.Close()
		if err := checkDevice(target, c.Path, onto); err != nil {
			return err
		}
		for _, tree := range copies[len(there):] {
			if err := sys.MoveMount(tree, target, ""); err != nil {
				return err
			}
			target = tree
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("put back the covers of %q: %w", c.Path, err)
	}
	return nil
}

// take returns detached copies of the covers, the lowest first, each with everything
// mounted below it. Only the topmost mount of a stack can be reached by a path, so each
// is unmounted once it is copied, in a copy of the namespace that ends with the thread:
// nothing is lost if the copies cannot be put back.
func (c *Covers) take(ctx context.Context) (copies []*os.File, devices []uint64, err error) {
	err = nsenter.InNamespace(ctx, c.namespace, func(t *nsenter.Thread) error {
		if err := t.CopyMountNamespace(); err != nil {
			return err
		}
		stack, err := stackAt(t, c.Path, c.Device)
		if err != nil {
			return err
		}
		for _, m := range stack {
			devices = append(devices, DeviceOf(m))
		}
		copies = make([]*os.File, len(stack))
		for i := len(stack) - 1; i >= 0; i-- {
			if copies[i], err = takeTopmost(c.Path, stack[i].ID); err != nil {
				return err
			}
		}
		return nil
	})
	return slices.DeleteFunc(copies, func(f *os.File) bool { return f == nil }), devices, err
}

// stackAt returns the covers of the autofs mount in the namespace of the thread.
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
	if m := table.Find(path, device); m != nil && m.FSType == "autofs" {
		return table.Covers(m), nil
	}
	return nil, fmt.Errorf("%q: no autofs mount %s: %w", path, DeviceString(device), ErrChanged)
}

func takeTopmost(path string, id int) (*os.File, error) {
	root, err := openMount(path, id)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	tree, err := sys.CloneTree(root, unix.AT_RECURSIVE)
	if err != nil {
		return nil, err
	}
	if err := sys.Detach(root); err != nil {
		tree.Close()
		return nil, err
	}
	return tree, nil
}
