package mounts

import (
	"slices"
	"strconv"
	"strings"
)

// Propagation is how mount events travel to and from a mount
// (mount_namespaces(7), the optional fields of mountinfo).
type Propagation struct {
	// Shared is the peer group that the mount is in, 0 if none; Master the one
	// that it receives events from, 0 if none.
	Shared, Master int
	Unbindable     bool
}

// PropagationOf reads a mount's optional fields, and skips unknown ones.
func PropagationOf(m *Mount) Propagation {
	var p Propagation
	for _, field := range strings.Fields(m.Optional) {
		name, value, _ := strings.Cut(field, ":")
		group, err := strconv.Atoi(value)
		switch {
		case name == "unbindable":
			p.Unbindable = true
		case err != nil:
		case name == "shared":
			p.Shared = group
		case name == "master":
			p.Master = group
		}
	}
	return p
}

// source follows the masters of a parent up to one from which mounts propagate to it.
func source(parents []Propagation, arrived []bool, i int) int {
	for range parents { // mountinfo read during changes may contain a loop
		up := slices.IndexFunc(parents, func(q Propagation) bool { return parents[i].Master != 0 && q.Shared == parents[i].Master })
		if up < 0 || arrived[up] {
			break
		}
		i = up
	}
	return i
}

// Origins picks, from the parents of one mount point in several mount namespaces,
// those on which something must be mounted to propagate to all of them: from a parent to
// its peers and to the slaves of its group, and on from these.
func Origins(parents []Propagation) []int {
	var picked []int
	arrived := make([]bool, len(parents))
	groups := map[int]bool{} // from which mounts propagate
	for i := range parents {
		if arrived[i] {
			continue
		}
		i = source(parents, arrived, i)
		p := parents[i]
		picked = append(picked, i)
		arrived[i] = true
		if p.Shared != 0 {
			groups[p.Shared] = true
		}
		for changed := true; changed; {
			changed = false
			for j, q := range parents {
				if !arrived[j] && (q.Shared != 0 && groups[q.Shared] || q.Master != 0 && groups[q.Master]) {
					arrived[j], changed = true, true
					if q.Shared != 0 {
						groups[q.Shared] = true
					}
				}
			}
		}
	}
	return picked
}
