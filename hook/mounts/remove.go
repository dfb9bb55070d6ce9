package mounts

import (
	"fmt"
	"os"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
)

// fillSource is the source, in mount tables, of the mounts that a [NewRemoval] uses.
const fillSource = "autofs-restore-hook-fill"

// NewRemoval is a [Replacement] that only removes a mount, in every namespace that shows
// it: its covers lie on its parent then. The caller closes New after [Replace].
//
// It works in two steps: another mount replaces the old one, and is then unmounted
// itself. A run that is interrupted between the two leaves that mount, which
// [Table.Leftovers] finds.
func NewRemoval(path string, old uint64) (*Replacement, error) {
	fill, err := newFill()
	if err != nil {
		return nil, fmt.Errorf("remove the mount at %q: %w", path, err)
	}
	return &Replacement{Path: path, Old: old, New: fill, remove: true}, nil
}

// newFill creates an autofs mount without a master. autofs is the one file system type
// for which systemd makes no mount unit (src/core/mount.c, mount_setup_unit).
func newFill() (*os.File, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer read.Close()
	defer write.Close()
	fill, err := autofs.Create(autofs.CreateOptions{PipeWriter: write, Type: autofs.Offset, UID: -1, GID: -1, Source: fillSource})
	if err != nil {
		return nil, err
	}
	root, err := autofs.Reopen(fill)
	if err == nil {
		err = autofs.Catatonic(root)
		root.Close()
	}
	if err != nil {
		fill.Close()
		return nil, err
	}
	return fill, nil
}

// Leftovers are the mounts that an interrupted [NewRemoval] has left.
func (t *Table) Leftovers() []*Mount { return t.fills }

// DetachTree unmounts a mount, with everything mounted on it, in the namespace of the
// calling thread.
func DetachTree(m *Mount) error {
	root, err := openMount(m.Mountpoint, m.ID)
	if err != nil {
		return err
	}
	defer root.Close()
	return sys.Detach(root)
}

// listedTwice returns a mount that is to be replaced more than once: the second time
// its cover would be taken for it.
func listedTwice(list []*Replacement) *Replacement {
	type mount struct {
		path   string
		device uint64
	}
	seen := map[mount]bool{}
	for _, r := range list {
		key := mount{r.Path, r.Old}
		if seen[key] {
			return r
		}
		seen[key] = true
	}
	return nil
}
