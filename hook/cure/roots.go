package cure

import (
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

// RootsToKeep returns the open roots of the mounts that still need a repair at the end of
// Preserve, and sets h.Roots in their order.
func (s *Session) RootsToKeep(h *journal.Handover) ([]*os.File, error) {
	h.Roots = nil
	if len(s.container.Roots) == 0 {
		return nil, nil // all were preserved
	}
	list, err := s.container.ListAutofs()
	if err == nil {
		err = s.container.FindMasters(list) // all processes are stopped: known masters have the same files
	}
	if err != nil {
		return nil, err
	}
	h.Describe(list, s.container.Main().ID)
	var files []*os.File
	for i := range list {
		key := list[i].Key()
		if f := s.container.Roots[key]; f != nil && plan.NeedsRepair(&list[i]) {
			h.Roots = append(h.Roots, journal.HeldRoot{Namespace: key.Namespace, Mount: key.Mount, Index: len(files)})
			files = append(files, f)
		}
	}
	return files, nil
}
