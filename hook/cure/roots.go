package cure

import (
	"context"
	"errors"
	"os"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
)

// TakeRoots opens the roots that the helper has open.
func (s *Session) TakeRoots(h *journal.Handover) {
	if len(h.Roots) == 0 {
		return
	}
	files, err := h.Helper.OpenAll()
	if err != nil {
		s.warn(err)
	}
	for _, root := range h.Roots {
		if root.Index >= 0 && root.Index < len(files) && files[root.Index] != nil {
			s.container.Roots[container.RootKey{Namespace: root.Namespace, Mount: root.Mount}] = files[root.Index]
			files[root.Index] = nil
		}
	}
	for _, f := range files {
		f.Close() // nil for those in Roots
	}
}

// openOneRoot opens one root of each superblock of a trigger: the one that recreateAll
// replaces, or all others if another mount hides that one. A container may show each mount
// in dozens of namespaces, and to enter one takes longer than to open its roots.
func (s *Session) openOneRoot(ctx context.Context, list []container.Mount) {
	chosen := map[uint64]*container.Mount{} // by device number
	better := func(a, b *container.Mount) bool {
		return a.Main && (!b.Main || a.DeviceBefore != 0 && b.DeviceBefore == 0)
	}
	for i := range list {
		m := &list[i]
		if first := chosen[m.Device]; m.Options.Type.Trigger() && (first == nil || better(m, first)) {
			chosen[m.Device] = m
		}
	}
	wanted := map[container.RootKey]bool{}
	for _, m := range chosen {
		wanted[m.Key()] = true
	}
	err := s.container.OpenRoots(ctx, func(key container.RootKey) bool { return wanted[key] })
	clear(wanted)
	for i := range list {
		key, m := list[i].Key(), chosen[list[i].Device]
		wanted[key] = m != nil && key != m.Key() && s.container.Roots[m.Key()] == nil
	}
	err = errors.Join(err, s.container.OpenRoots(ctx, func(key container.RootKey) bool { return wanted[key] }))
	if err != nil {
		s.warn(err)
	}
}

// RootsToKeep opens and returns the roots of the mounts that still need a repair at the end
// of Preserve, and sets h.Roots in their order.
func (s *Session) RootsToKeep(ctx context.Context, h *journal.Handover) ([]*os.File, error) {
	h.Roots = nil
	if len(s.container.Roots) == 0 {
		return nil, nil // all were preserved, or none could be opened
	}
	list, err := s.container.ListAutofs()
	if err == nil {
		err = s.container.FindMasters(list) // all processes are stopped: known masters have the same files
	}
	if err != nil {
		return nil, err
	}
	h.Describe(list, s.container.Main().ID)
	stale := map[container.RootKey]bool{}
	for i := range list {
		stale[list[i].Key()] = plan.NeedsRepair(&list[i])
	}
	if err := s.container.OpenRoots(ctx, func(key container.RootKey) bool { return stale[key] }); err != nil {
		s.warn(err)
	}
	var files []*os.File
	for i := range list {
		key := list[i].Key()
		if f := s.container.Roots[key]; f != nil && stale[key] {
			h.Roots = append(h.Roots, journal.HeldRoot{Namespace: key.Namespace, Mount: key.Mount, Index: len(files)})
			files = append(files, f)
		}
	}
	return files, nil
}
