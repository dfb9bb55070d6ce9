package mounts

import (
	"fmt"
	"os"
)

// workspace is the state of one Replace.
type workspace struct {
	spaces []Space
	// namespaces are the open mount namespaces of the spaces, nil for those that are not
	// entered.
	namespaces []*os.File
	list       []*Replacement
	// shown are all places of old mounts; targets are those where the new ones are
	// mounted.
	shown, targets []*target
	parents        map[parentKey]*parent
	clones         map[cloneKey]*clone
}

// target is a place where a new mount is mounted; from there it propagates.
type target struct {
	space       int
	replacement *Replacement
	old, parent *Mount
	clone       *clone
	peer        *os.File // the copy of the new mount that is mounted here
	origin      bool     // a target
}

type parentKey struct{ space, mount int }

// parent is a mount that others are mounted on.
type parent struct {
	mount *Mount
	root  *os.File
	// changed is set while it is shared and was not before.
	changed bool
}

type cloneKey struct {
	space, mount int
	directory    string
}

// clone is a detached peer of a parent, of one directory of it.
type clone struct {
	tree    *os.File
	mounted bool // on the scratch file system
}

// locate finds the old mounts, and the targets.
func (w *workspace) locate() {
	for _, r := range w.list {
		var shown []*target
		var parents []Propagation
		for i, s := range w.spaces {
			old := s.find(r.Path, r.Old)
			if old == nil {
				continue
			}
			p := s.Table.ByID(old.Parent)
			if p == nil {
				r.fail(fmt.Errorf("%q: the mount it lies on is not in the mount table", r.Path))
				continue
			}
			shown = append(shown, &target{space: i, replacement: r, old: old, parent: p})
			parents = append(parents, PropagationOf(p))
		}
		if len(shown) == 0 {
			r.fail(fmt.Errorf("%q: no autofs mount %s: %w", r.Path, DeviceString(r.Old), ErrChanged))
			continue
		}
		w.shown = append(w.shown, shown...)
		for _, i := range Origins(parents) {
			shown[i].origin = true
			w.targets = append(w.targets, shown[i])
		}
	}
}
