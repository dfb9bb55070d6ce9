// Package mounts reads the mount tables of a container's mount namespaces and changes
// mounts in them. [Replace] puts a new autofs mount in the place of an old one, beneath its
// covers, which are the mounts over its root; [Undo] rolls an interrupted Replace back. For
// a master that recreates its mount itself, [CopyCovers] saves the covers.
//
// A [Table] is read from /proc/<pid>/mountinfo. That walks onto no mount, so it triggers no
// automount and never blocks on one that no process serves.
package mounts

import (
	"fmt"
	"io"
	"slices"

	"github.com/moby/sys/mountinfo"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// maxTable bounds a mount table, in bytes of mountinfo. The kernel's default
// limit of 100,000 mounts a namespace (fs.mount-max) stays below it with names
// of ordinary length.
const maxTable = 64 << 20

// Budget bounds the mount tables of one container together. A container decides how many
// mount namespaces it has, and how many mounts are in each, but the memory is the host's.
// All tables together may be as long as one: 600,000 mounts with names of ordinary
// length take 280 MiB. The zero value is a full budget.
type Budget struct{ used int64 }

// Of is [Of] within the budget.
func (b *Budget) Of(p *nsenter.Process) (*Table, error) {
	f, err := p.OpenProc("mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	t, err := b.read(f)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", p.PID(), err)
	}
	return t, nil
}

// Mount is one line of mountinfo, with blanks, newlines and backslashes in
// names already decoded.
type Mount = mountinfo.Info

// Table is the mount table of one mount namespace.
type Table struct {
	Mounts   []*Mount
	byID     map[int]*Mount
	children map[int][]*Mount
	autofs   []*Mount
	fills    []*Mount
	byPoint  map[string][]*Mount // filled by the first call of at
}

// Of reads the mount table of the process's mount namespace. Mounts outside
// the process's root directory do not appear (proc_pid_mountinfo(5)).
func Of(p *nsenter.Process) (*Table, error) { return new(Budget).Of(p) }

// Read parses mountinfo text.
func Read(r io.Reader) (*Table, error) { return new(Budget).read(r) }

func (b *Budget) read(r io.Reader) (*Table, error) {
	limited := &io.LimitedReader{R: r, N: maxTable - b.used}
	list, err := parse(limited)
	b.used = maxTable - limited.N
	if limited.N == 0 { // the last line may have been cut
		return nil, fmt.Errorf("mount tables: longer than %d bytes together", maxTable)
	}
	if err != nil {
		return nil, fmt.Errorf("mount table: %w", err)
	}
	t := &Table{Mounts: list, byID: make(map[int]*Mount, len(list)), children: map[int][]*Mount{}}
	for _, m := range list {
		t.byID[m.ID] = m
		t.children[m.Parent] = append(t.children[m.Parent], m)
		switch {
		case m.FSType != "autofs":
		case m.Source == fillSource:
			t.fills = append(t.fills, m)
		default:
			t.autofs = append(t.autofs, m)
		}
	}
	slices.SortStableFunc(t.autofs, func(a, b *Mount) int { return len(a.Mountpoint) - len(b.Mountpoint) })
	return t, nil
}

// ByID returns the mount with the given mount id, or nil.
func (t *Table) ByID(id int) *Mount { return t.byID[id] }

// at returns the mounts at a mount point.
func (t *Table) at(mountpoint string) []*Mount {
	if t.byPoint == nil {
		t.byPoint = make(map[string][]*Mount, len(t.Mounts))
		for _, m := range t.Mounts {
			t.byPoint[m.Mountpoint] = append(t.byPoint[m.Mountpoint], m)
		}
	}
	return t.byPoint[mountpoint]
}

// Autofs returns the autofs mounts except [Table.Leftovers], shortest path first, so that a
// mount comes before those below it.
func (t *Table) Autofs() []*Mount { return t.autofs }

// Descendants returns the mounts on m, and the mounts on those, a mount always before those on
// it.
func (t *Table) Descendants(m *Mount) []*Mount {
	var found []*Mount
	seen := map[int]bool{m.ID: true}
	queue := []*Mount{m}
	for len(queue) > 0 {
		next := queue[0]
		queue = queue[1:]
		for _, child := range t.children[next.ID] {
			if !seen[child.ID] {
				seen[child.ID] = true
				found = append(found, child)
				queue = append(queue, child)
			}
		}
	}
	return found
}

// Covers returns the mounts that lie exactly over m's root, from the lowest to
// the topmost. It is empty if m is not covered.
func (t *Table) Covers(m *Mount) []*Mount {
	var stack []*Mount
	seen := map[int]bool{m.ID: true}
	for top := m; ; {
		var over *Mount
		for _, child := range t.children[top.ID] {
			if child.Mountpoint == m.Mountpoint && !seen[child.ID] {
				over = child
			}
		}
		if over == nil {
			return stack
		}
		seen[over.ID] = true
		stack = append(stack, over)
		top = over
	}
}

// Find returns the mount with the given mount point and st_dev, or nil.
func (t *Table) Find(path string, device uint64) *Mount {
	for _, m := range t.at(path) {
		if DeviceOf(m) == device {
			return m
		}
	}
	return nil
}

// LowestCover returns the lowest cover of m, or nil.
func (t *Table) LowestCover(m *Mount) *Mount {
	if stack := t.Covers(m); len(stack) > 0 {
		return stack[0]
	}
	return nil
}
