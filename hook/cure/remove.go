package cure

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/owner"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/park"
)

// mountAt identifies a mount to be removed by mount point and st_dev, in all mount
// namespaces.
type mountAt struct {
	path    string
	device  uint64
	parking bool // for removeCovered: a parking mount, else a trigger
}

// parkingMounts returns the parking mounts.
func (p *parking) parkingMounts() []mountAt {
	var list []mountAt
	for _, t := range p.Mounts {
		list = append(list, mountAt{t.Path, t.Parking, true})
	}
	return list
}

// staleMounts returns the stale triggers that the parking mounts replace.
func (p *parking) staleMounts() []mountAt {
	var list []mountAt
	for _, t := range p.Mounts {
		list = append(list, mountAt{t.Path, t.Stale, false})
	}
	return list
}

// staleMountsOf returns the stale triggers of a daemon that parking mounts replace.
func (s *Session) staleMountsOf(daemon *owner.Member) []mountAt {
	var list []mountAt
	for _, p := range s.parkingsOf(daemon) {
		list = append(list, p.staleMounts()...)
	}
	return list
}

// removeCovered removes mounts from beneath their covers, in the namespaces where they are
// covered. It uses the mount tables as last read.
func (s *Session) removeCovered(ctx context.Context, list []mountAt) error {
	groups := map[string][]mountAt{} // by the pids of the namespaces
	spaces := map[string][]mounts.Space{}
	seen := map[mountAt]bool{} // an interrupted run may have listed the same trigger
	for _, place := range list {
		if seen[place] {
			continue
		}
		seen[place] = true
		var key strings.Builder
		var where []mounts.Space
		for _, sp := range s.container.MountSpaces() {
			if m := sp.Table.Find(place.path, place.device); m != nil && removable(sp.Table, m, place) {
				fmt.Fprintf(&key, "%d ", sp.Process.PID())
				where = append(where, sp)
			}
		}
		if len(where) > 0 {
			groups[key.String()] = append(groups[key.String()], place)
			spaces[key.String()] = where
		}
	}
	var errs []error
	for key, places := range groups {
		errs = append(errs, s.removeIn(ctx, spaces[key], places))
	}
	return errors.Join(errs...)
}

// removable reports whether a mount with the device number of wanted is the wanted one: a
// parking mount with any cover, or a trigger beneath another trigger. A trigger in use has
// another cover.
func removable(t *mounts.Table, m *mounts.Mount, wanted mountAt) bool {
	over := t.LowestCover(m)
	if over == nil || m.FSType != "autofs" {
		return false
	}
	if wanted.parking {
		return m.Source == park.Source
	}
	return m.Source != park.Source && over.FSType == "autofs"
}

// removeIn removes mounts in the given namespaces.
func (s *Session) removeIn(ctx context.Context, spaces []mounts.Space, places []mountAt) error {
	var removals []*mounts.Replacement
	defer func() { closeTrees(removals) }()
	for _, place := range places {
		r, err := mounts.NewRemoval(place.path, place.device)
		if err != nil {
			return err
		}
		removals = append(removals, r)
	}
	errs := []error{s.replace(ctx, spaces, removals)}
	for _, r := range removals {
		errs = append(errs, r.Err)
	}
	return errors.Join(errs...)
}
