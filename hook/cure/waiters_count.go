package cure

import (
	"context"
	"slices"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
)

const (
	// servingTime is how long a repair waits for masters to serve the released processes.
	servingTime = time.Second
	// mountingTime is how long a released process waits before systemd is asked whether it
	// mounts something for it.
	mountingTime = 100 * time.Millisecond
)

// CountWaiters sets the waiters that still wait, and the numbers of released and refused
// waiters of each mount. It waits up to servingTime for waiters to go on. answered is
// whether every systemd that was called after the cures has answered.
//
// A waiter that its master serves is not one that still waits: what the master mounts may
// be slow, as of a file server. Such are waiters on preserved and healthy mounts, and those
// for which systemd has a job for a mount unit.
func (r *Repair) CountWaiters(ctx context.Context, rep *report.Report, answered bool) {
	settled := func(c plan.Cure) bool { return c == plan.Healthy || c == plan.Preserved && answered }
	rep.Waiting = r.waitersExcept(settled)
	if len(r.snapshot.Waiters) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, servingTime+mountingTime)
	defer cancel()
	blocked, unserved, err := r.awaitWaiters(ctx, rep.Waiting)
	if err != nil {
		r.warn(err)
		return
	}
	rep.Waiting = unserved
	counted := map[int]bool{}
	for i := range rep.Mounts {
		m := &rep.Mounts[i]
		if m.MountNamespace != r.container.Main().ID {
			continue
		}
		for _, p := range container.WaitersOn(r.snapshot.Waiters, m.Path) {
			switch {
			case slices.ContainsFunc(unserved, func(w container.Waiter) bool { return w.PID == p.PID }):
				rep.Stuck = rep.Stuck || !settled(m.Outcome)
			case !blocked[p.PID] && !counted[p.PID]:
				counted[p.PID] = true
				if r.refused[p.PID] {
					m.WaitersRefused++
				} else {
					m.WaitersReleased++
				}
			}
		}
	}
}

// waitersExcept returns the waiters without those on a mount with a settled cure.
func (r *Repair) waitersExcept(settled func(plan.Cure) bool) []container.Waiter {
	if !slices.ContainsFunc(r.Plan, func(d plan.Decision) bool { return !settled(d.Cure) }) {
		return nil
	}
	return container.WaitersExcept(slices.Clone(r.snapshot.Waiters), r.snapshot.Mounts, func(i int) bool { return settled(r.Plan[i].Cure) })
}

// awaitWaiters waits until every waiter of the list has gone on or is served, or until ctx
// ends. It returns the pids of all processes that are blocked then, and the waiters of the
// list that are blocked and not served.
func (r *Repair) awaitWaiters(ctx context.Context, list []container.Waiter) (blocked map[int]bool, unserved []container.Waiter, err error) {
	begin := time.Now()
	for ask := begin.Add(mountingTime); ; time.Sleep(max(container.RetryInterval, time.Since(begin)/8)) { // each look reads every task
		found, err := r.container.FindWaiters()
		if err != nil {
			return nil, nil, err
		}
		blocked = map[int]bool{}
		for _, w := range found {
			blocked[w.PID] = true
		}
		unserved = slices.DeleteFunc(slices.Clone(list), func(w container.Waiter) bool { return !blocked[w.PID] })
		now := time.Now()
		over := now.Sub(begin) > servingTime || ctx.Err() != nil
		if len(unserved) > 0 && (over || now.After(ask)) {
			ask = now.Add(mountingTime)
			unserved = r.withoutMounting(ctx, unserved)
		}
		if len(unserved) == 0 || over {
			return blocked, unserved, nil
		}
	}
}

// withoutMounting returns the waiters without those for which systemd mounts something.
func (r *Repair) withoutMounting(ctx context.Context, list []container.Waiter) []container.Waiter {
	for i := range r.snapshot.Mounts {
		m := &r.snapshot.Mounts[i]
		manager := r.container.Managers[m.Master.PID]
		if manager == nil || m.Master.Unit == "" || len(container.WaitersOn(list, m.Path)) == 0 {
			continue
		}
		mounting, err := manager.Mounting(ctx, m.Master.Unit)
		if err != nil {
			r.warn(err)
			return list
		}
		if mounting {
			list = slices.DeleteFunc(list, func(w container.Waiter) bool { return w.On(m.Path) })
		}
	}
	return list
}
