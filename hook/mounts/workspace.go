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
	// sites are all old mounts; at the origins among them new mounts are mounted, which
	// propagate from there to the others.
	sites, origins []*site
	parents        map[parentKey]*parent
	clones         map[cloneKey]*clone
}

// site is an old mount in one of the namespaces, and the mount that it lies on.
type site struct {
	space       int // index in spaces
	replacement *Replacement
	old, parent *Mount
	// origin is whether it is one of the origins. Only these have a clone of the parent,
	// and a peer: the copy of the new mount that is mounted on that.
	origin bool
	clone  *clone
	peer   *os.File
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

// locate finds the old mounts, and the origins among them.
func (w *workspace) locate() {
	for _, r := range w.list {
		var sites []*site
		var parents []Propagation
		for i, s := range w.spaces {
			old := s.Table.Find(r.Path, r.Old)
			if old == nil {
				continue
			}
			p := s.Table.ByID(old.Parent)
			if p == nil {
				r.fail(fmt.Errorf("%q: the mount it lies on is not in the mount table", r.Path))
				continue
			}
			sites = append(sites, &site{space: i, replacement: r, old: old, parent: p})
			parents = append(parents, PropagationOf(p))
		}
		if len(sites) == 0 {
			r.fail(fmt.Errorf("%q: no autofs mount %s: %w", r.Path, DeviceString(r.Old), ErrChanged))
			continue
		}
		w.sites = append(w.sites, sites...)
		for _, i := range Origins(parents) {
			sites[i].origin = true
			w.origins = append(w.origins, sites[i])
		}
	}
}
