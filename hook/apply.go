package hook

import (
	"context"
	"path"
	"sort"
)

// repairWork carries out a plan while the container runs, and writes into it what came
// of it.
type repairWork struct {
	*Session
	snapshot *Snapshot
	plan     []Decision
	// killWaiters is the administrator's permission to end processes that wait
	// on a mount from which no process can be released.
	killWaiters bool
	// refused are the waiters that got an error.
	refused map[int]bool
}

// NewRepair prepares to carry out a plan. killWaiters is the administrator's
// permission to end processes that wait on a mount from which none can be released.
func (s *Session) NewRepair(snapshot *Snapshot, plan []Decision, killWaiters bool) *repairWork {
	return &repairWork{Session: s, snapshot: snapshot, plan: plan, killWaiters: killWaiters, refused: map[int]bool{}}
}

// apply carries out the cures: automount daemons reload, systemd re-executes itself, and
// then units are restarted, the shortest path first, so that an automount below
// another one is looked at when the outer one stands.
func (w *repairWork) apply(ctx context.Context) {
	reloaded := w.reload(ctx)
	reexecuted := w.reexecute(ctx)
	restarts := w.coveredLast(w.ordered(Restarted))
	if len(restarts) > 0 {
		w.restartAll(ctx, restarts)
	}
	if reloaded || reexecuted || len(restarts) > 0 {
		w.verify()
	}
}

func (w *repairWork) restartAll(ctx context.Context, list []int) {
	if err := w.openRoots(ctx, list); err != nil {
		w.warn(err)
	}
	w.openClosed(ctx, list)
	resume := w.divert(ctx, list)
	defer resume()
	for _, i := range list {
		if !w.snapshot.Mounts[i].Main {
			continue
		}
		if err := w.restart(ctx, i); err != nil {
			w.fail(i, err)
		}
	}
}

// openRoots opens the roots of mounts, in every namespace that shows them.
func (w *repairWork) openRoots(ctx context.Context, list []int) error {
	devices := map[uint64]bool{}
	for _, i := range list {
		devices[w.snapshot.Mounts[i].Device] = true
	}
	wanted := map[rootKey]bool{}
	for i := range w.snapshot.Mounts {
		m := &w.snapshot.Mounts[i]
		wanted[rootKey{m.Namespace, m.ID}] = devices[m.Device]
	}
	return w.container.openRoots(ctx, func(key rootKey) bool { return wanted[key] })
}

// ordered returns the mounts with a cure, the shortest path first.
func (w *repairWork) ordered(cure Cure) []int {
	var list []int
	for _, d := range w.plan {
		if d.Cure == cure {
			list = append(list, d.Mount)
		}
	}
	sort.SliceStable(list, func(a, b int) bool {
		return len(w.snapshot.Mounts[list[a]].Path) < len(w.snapshot.Mounts[list[b]].Path)
	})
	return list
}

// coveredLast moves those mounts to the front that nothing covers and that are not
// below another one of the list. After five changes of mounts systemd looks at
// none for the rest of a second (src/core/mount.c, a rate limit), and a cover
// that is away for a moment then stops no service that is bound to it.
func (w *repairWork) coveredLast(list []int) []int {
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

func (w *repairWork) fail(mount int, err error) {
	w.plan[mount].Cure = Unrepaired
	w.plan[mount].Reason = err.Error()
}
