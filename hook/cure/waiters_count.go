package cure

import (
	"context"
	"slices"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
)

// servingTime is how long a repair waits for masters to serve the released processes.
const servingTime = time.Second

// mountingTime is how long a released process waits before systemd is asked whether it
// mounts something for it.
const mountingTime = 100 * time.Millisecond

// CountWaiters sets the waiters that are still waiting, and the numbers of released and
// refused waiters of each mount. It waits up to servingTime for waiters to resume. A process
// does not count while its master serves it, because what that mounts may be slow: on a
// mount without a cure, or while systemd mounts something there.
func (r *Repair) CountWaiters(ctx context.Context, report *report.Report) {
	before := waitersOnCured(r.snapshot.Waiters, report.Mounts)
	report.Waiting = nil
	if len(before) == 0 {
		return
	}
	still := map[int]bool{}
	begin := time.Now()
	for ask := begin.Add(mountingTime); ; time.Sleep(container.RetryInterval) {
		found, err := r.container.FindWaiters()
		if err != nil {
			r.warn(err)
			return
		}
		report.Waiting = slices.DeleteFunc(found, func(p container.Waiter) bool {
			return !slices.ContainsFunc(before, func(b container.Waiter) bool { return b.PID == p.PID })
		})
		now := time.Now()
		if now.After(ask) && len(report.Waiting) > 0 {
			ask = now.Add(mountingTime)
			report.Waiting = r.withoutServed(ctx, report.Waiting)
		}
		if len(report.Waiting) == 0 || now.Sub(begin) > servingTime {
			break
		}
	}
	for _, p := range report.Waiting {
		still[p.PID] = true
	}
	counted := map[int]bool{}
	for i := range report.Mounts {
		m := &report.Mounts[i]
		if m.MountNamespace != r.container.Main().ID || !needsCure(m) {
			continue
		}
		for _, p := range container.WaitersOn(before, m.Path) {
			switch {
			case still[p.PID]:
				report.Stuck = true
			case !counted[p.PID]:
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

// waitersOnCured returns the waiters on mounts with a cure, and those whose path is unknown.
func waitersOnCured(list []container.Waiter, mounts []report.Mount) []container.Waiter {
	return slices.DeleteFunc(slices.Clone(list), func(w container.Waiter) bool {
		return !slices.ContainsFunc(mounts, func(m report.Mount) bool {
			return needsCure(&m) && (w.Path == "" || len(container.WaitersOn([]container.Waiter{w}, m.Path)) > 0)
		})
	})
}

// needsCure reports whether Repair has cured the mount, or could not.
func needsCure(m *report.Mount) bool { return m.Outcome != plan.Healthy && m.Outcome != plan.Preserved }

// withoutServed returns the waiters without those for which systemd mounts something.
func (r *Repair) withoutServed(ctx context.Context, list []container.Waiter) []container.Waiter {
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
			list = slices.DeleteFunc(list, func(w container.Waiter) bool { return len(container.WaitersOn([]container.Waiter{w}, m.Path)) > 0 })
		}
	}
	return list
}
