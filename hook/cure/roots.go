package cure

import (
	"os"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
)

// TakeRoots copies the roots that the holder keeps.
func (s *Session) TakeRoots(h *journal.Handover) {
	if len(h.Roots) == 0 {
		return
	}
	files, err := h.Holder.OpenAll()
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
		f.Close() // nil for those that are in use
	}
}

// RootsToKeep returns the open roots of the mounts that still need a repair at the
// end of Preserve, and notes their order in the handover.
func (s *Session) RootsToKeep(h *journal.Handover) ([]*os.File, error) {
	h.Roots = nil
	list, err := s.container.ListAutofs()
	if err == nil {
		err = s.container.FindMasters(list) // all are stopped: what they have open is known
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
