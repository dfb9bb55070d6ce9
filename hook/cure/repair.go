package cure

import (
	"context"
	"fmt"
	"path"
	"slices"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
)

// Repair carries out a plan while the container runs.
type Repair struct {
	*Session
	snapshot *container.Snapshot
	// Plan has the planned cures, and after Apply the outcomes, of the snapshot's mounts
	// with the same index.
	Plan []plan.Decision
	// killWaiters is the administrator's permission to kill waiters that cannot be
	// released.
	killWaiters bool
	// refused are the waiters that got an error, by pid.
	refused map[int]bool
}

// NewRepair returns a repair of a container according to a plan. killWaiters allows it to
// kill waiters that cannot be released.
func (s *Session) NewRepair(snapshot *container.Snapshot, plan []plan.Decision, killWaiters bool) *Repair {
	return &Repair{Session: s, snapshot: snapshot, Plan: plan, killWaiters: killWaiters, refused: map[int]bool{}}
}

// Apply carries out the cures: automount daemons reload, systemd re-executes itself, then
// units are restarted, the shortest path first, so that an automount below another one
// is restarted after that. It verifies the result and updates Plan.
func (r *Repair) Apply(ctx context.Context) {
	reloaded := r.reloadAll(ctx)
	reexecuted := r.reexecuteAll(ctx)
	restarts := r.uncoveredFirst(r.mountsWith(plan.Restarted))
	if len(restarts) > 0 {
		r.restartAll(ctx, restarts)
	}
	if reloaded || reexecuted || len(restarts) > 0 {
		r.verify()
	}
}

// restartAll restarts the units of mounts. Without time for it no waiter is parked.
func (r *Repair) restartAll(ctx context.Context, list []int) {
	if ctx.Err() != nil {
		for _, i := range list {
			r.setUnrepaired(i, fmt.Errorf("%s; restart its unit: %w; repair again", r.Plan[i].Reason, context.Cause(ctx)))
		}
		return
	}
	r.openRoots(ctx, list, r.copiesOf(list))
	resume := r.parkWaiters(ctx, list)
	defer resume()
	for _, i := range list {
		if !r.snapshot.Mounts[i].Main {
			continue
		}
		if err := r.restart(ctx, i); err != nil {
			r.setUnrepaired(i, err)
		}
	}
}

// openRoots opens the roots of mounts and of the given copies of them. A root that is
// blocked by waiters is opened only if its mount is in list.
func (r *Repair) openRoots(ctx context.Context, list, copies []int) {
	wanted := map[container.RootKey]bool{}
	for _, i := range slices.Concat(list, copies) {
		wanted[r.snapshot.Mounts[i].Key()] = true
	}
	if err := r.container.OpenRoots(ctx, func(key container.RootKey) bool { return wanted[key] }); err != nil {
		r.warn(err)
	}
	r.openBlockedRoots(ctx, list)
}

// copiesOf returns the mounts of the same superblocks, in every namespace that shows them.
func (r *Repair) copiesOf(list []int) []int {
	devices := map[uint64]bool{}
	for _, i := range list {
		devices[r.snapshot.Mounts[i].Device] = true
	}
	var copies []int
	for i := range r.snapshot.Mounts {
		if devices[r.snapshot.Mounts[i].Device] {
			copies = append(copies, i)
		}
	}
	return copies
}

// mountsWith returns the indices of the mounts with a planned cure, the shortest path
// first.
func (r *Repair) mountsWith(cure plan.Cure) []int {
	var list []int
	for i, d := range r.Plan {
		if d.Cure == cure {
			list = append(list, i)
		}
	}
	slices.SortStableFunc(list, func(a, b int) int {
		return len(r.snapshot.Mounts[a].Path) - len(r.snapshot.Mounts[b].Path)
	})
	return list
}

// uncoveredFirst moves the mounts to the front that have no cover and are not below another
// one of the list. After five mount events systemd ignores them for the rest of a second
// (src/core/mount.c, a rate limit). Then it does not see that covers are detached during
// a restart, and does not stop services with BindsTo= on them.
func (r *Repair) uncoveredFirst(list []int) []int {
	paths := map[string]bool{}
	for _, i := range list {
		paths[r.snapshot.Mounts[i].Path] = true
	}
	var uncovered, rest []int
	for _, i := range list {
		m := &r.snapshot.Mounts[i]
		below := false
		for p := path.Dir(m.Path); len(p) > 1 && !below; p = path.Dir(p) {
			below = paths[p]
		}
		if len(m.Covers) == 0 && !below {
			uncovered = append(uncovered, i)
		} else {
			rest = append(rest, i)
		}
	}
	return append(uncovered, rest...)
}

// setUnrepaired makes err the reason why mount i is unrepaired.
func (r *Repair) setUnrepaired(i int, err error) {
	r.Plan[i].Cure = plan.Unrepaired
	r.Plan[i].Reason = err.Error()
}
