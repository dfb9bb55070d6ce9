package cure

import (
	"context"
	"path"
	"sort"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
)

// Repair carries out a plan while the container runs, and writes into it what came
// of it.
type Repair struct {
	*Session
	snapshot *container.Snapshot
	Plan     []plan.Decision
	// killWaiters is the administrator's permission to end processes that wait
	// on a mount from which no process can be released.
	killWaiters bool
	// refused are the waiters that got an error.
	refused map[int]bool
}

// NewRepair prepares to carry out a plan. killWaiters is the administrator's
// permission to end processes that wait on a mount from which none can be released.
func (s *Session) NewRepair(snapshot *container.Snapshot, plan []plan.Decision, killWaiters bool) *Repair {
	return &Repair{Session: s, snapshot: snapshot, Plan: plan, killWaiters: killWaiters, refused: map[int]bool{}}
}

// Apply carries out the cures: automount daemons reload, systemd re-executes itself, and
// then units are restarted, the shortest path first, so that an automount below
// another one is looked at when the outer one stands.
func (w *Repair) Apply(ctx context.Context) {
	reloaded := w.reloadAll(ctx)
	reexecuted := w.reexecuteAll(ctx)
	restarts := w.uncoveredFirst(w.mountsWith(plan.Restarted))
	if len(restarts) > 0 {
		w.restartAll(ctx, restarts)
	}
	if reloaded || reexecuted || len(restarts) > 0 {
		w.verify()
	}
}

func (w *Repair) restartAll(ctx context.Context, list []int) {
	if err := w.openRoots(ctx, list); err != nil {
		w.warn(err)
	}
	w.openBlockedRoots(ctx, list)
	resume := w.parkWaiters(ctx, list)
	defer resume()
	for _, i := range list {
		if !w.snapshot.Mounts[i].Main {
			continue
		}
		if err := w.restart(ctx, i); err != nil {
			w.setUnrepaired(i, err)
		}
	}
}

// openRoots opens the roots of mounts, in every namespace that shows them.
func (w *Repair) openRoots(ctx context.Context, list []int) error {
	devices := map[uint64]bool{}
	for _, i := range list {
		devices[w.snapshot.Mounts[i].Device] = true
	}
	wanted := map[container.RootKey]bool{}
	for i := range w.snapshot.Mounts {
		m := &w.snapshot.Mounts[i]
		wanted[m.Key()] = devices[m.Device]
	}
	return w.container.OpenRoots(ctx, func(key container.RootKey) bool { return wanted[key] })
}

// mountsWith returns the mounts with a cure, the shortest path first.
func (w *Repair) mountsWith(cure plan.Cure) []int {
	var list []int
	for _, d := range w.Plan {
		if d.Cure == cure {
			list = append(list, d.Mount)
		}
	}
	sort.SliceStable(list, func(a, b int) bool {
		return len(w.snapshot.Mounts[list[a]].Path) < len(w.snapshot.Mounts[list[b]].Path)
	})
	return list
}

// uncoveredFirst moves those mounts to the front that nothing covers and that are not
// below another one of the list. After five changes of mounts systemd looks at
// none for the rest of a second (src/core/mount.c, a rate limit), and a cover
// that is away for a moment then stops no service that is bound to it.
func (w *Repair) uncoveredFirst(list []int) []int {
	paths := map[string]bool{}
	for _, i := range list {
		paths[w.snapshot.Mounts[i].Path] = true
	}
	var free, rest []int
	for _, i := range list {
		m := &w.snapshot.Mounts[i]
		below := false
		for p := path.Dir(m.Path); len(p) > 1 && !below; p = path.Dir(p) {
			below = paths[p]
		}
		if len(m.Covers) == 0 && !below {
			free = append(free, i)
		} else {
			rest = append(rest, i)
		}
	}
	return append(free, rest...)
}

func (w *Repair) setUnrepaired(mount int, err error) {
	w.Plan[mount].Cure = plan.Unrepaired
	w.Plan[mount].Reason = err.Error()
}
