package hook

import "os"

// TakeRoots copies the roots that the holder keeps.
func (s *Session) TakeRoots(h *Handover) {
	if len(h.Roots) == 0 {
		return
	}
	files, err := h.Holder.OpenAll()
	if err != nil {
		s.warn(err)
	}
	for _, root := range h.Roots {
		if root.Index >= 0 && root.Index < len(files) && files[root.Index] != nil {
			s.container.roots[rootKey{root.Namespace, root.Mount}] = files[root.Index]
			files[root.Index] = nil
		}
	}
	for _, f := range files {
		f.Close() // nil for those that are in use
	}
}

// RootsToKeep returns the open roots of the mounts that still need a repair at the
// end of Preserve, and notes their order in the handover.
func (s *Session) RootsToKeep(h *Handover) ([]*os.File, error) {
	h.Roots = nil
	list, err := s.container.listAutofs()
	if err == nil {
		err = s.container.findMasters(list) // all are stopped: what they have open is known
	}
	if err != nil {
		return nil, err
	}
	h.Describe(list, s.container.main().id)
	var files []*os.File
	for i := range list {
		key := rootKey{list[i].Namespace, list[i].ID}
		if f := s.container.roots[key]; f != nil && needsRepair(&list[i]) {
			h.Roots = append(h.Roots, HeldRoot{Namespace: key.namespace, Mount: key.mount, Index: len(files)})
			files = append(files, f)
		}
	}
	return files, nil
}
