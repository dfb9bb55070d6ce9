package restores

import (
	"context"
	"fmt"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/agent/engine"
	"github.com/autofs-restore-hook/autofs-restore-hook/agent/status"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Later are pauses of Options.Later that fit the usual reason, a process that waits
// for a slow server.
var Later = []time.Duration{5 * time.Second, 15 * time.Second, time.Minute, 5 * time.Minute}

// repair repairs a container that no hook has repaired, and counts it after the last
// look. It is false if the agent ends first.
func (k *Keeper) repair(n engine.Notice, p *nsenter.Process) bool {
	for look := 0; ; look++ {
		r, ended := k.run(n, p)
		if r == nil {
			return ended
		}
		if look == 0 && !n.Started.IsZero() {
			k.Metrics.Reaction(time.Since(n.Started))
		}
		if r.Unjudged() && look == 1 {
			message := trouble(n, r) // reported before the last look
			k.log(n).WithField("trouble", message).Error("restored; what cannot be judged is looked at again")
			k.event(n, message)
		}
		if r.Unjudged() && k.pause(p, look) {
			continue
		}
		if k.ctx.Err() != nil && r.Unjudged() {
			return false // the next agent looks
		}
		k.count(n, r, status.ByAgent)
		return true
	}
}

// run runs a repair. The report is nil if the agent ends first, or the container
// has ended.
func (k *Keeper) run(n engine.Notice, p *nsenter.Process) (r *report.Report, ended bool) {
	var err error
	pause := 100 * time.Millisecond
	for try := 1; try <= attempts; try++ {
		// A repair that runs is finished, even if the agent is asked to end.
		if !k.work(func() {
			r, err = k.Repairer.Repair(context.WithoutCancel(k.ctx), n.PID)
		}) {
			return nil, false
		}
		if err == nil {
			return r, false
		}
		if p.Alive() != nil {
			k.Metrics.Gone.Inc()
			k.log(n).WithError(err).Info("a restored container ended while it was repaired")
			return nil, true
		}
		k.Metrics.FailedRuns.Inc()
		k.log(n).WithField("attempt", try).WithError(err).Error("a repair gave no report")
		select {
		case <-time.After(pause):
		case <-k.ctx.Done():
			return nil, false
		}
		pause *= 4
	}
	return &report.Report{
		Container: n.Container, PID: n.PID, Outcome: report.Failed,
		Error: fmt.Sprintf("%d runs gave no report; the last one: %v", attempts, err),
	}, false
}

// stale reports whether a container has mounts that a repair would cure. What cannot
// be judged is looked at again, a few times.
func (k *Keeper) stale(n engine.Notice, p *nsenter.Process) (bool, error) {
	for try := 0; ; try++ {
		var r *report.Report
		var err error
		if !k.work(func() { r, err = k.Repairer.Inspect(k.ctx, n.PID) }) {
			return false, context.Cause(k.ctx)
		}
		if err != nil {
			return false, err
		}
		if r.Outcome == report.Failed {
			return false, fmt.Errorf("inspect process %d: %s", n.PID, r.Error)
		}
		for i := range r.Mounts {
			if o := r.Mounts[i].Outcome; r.Outcome == report.Planned && o != plan.Healthy && o != plan.Unrepaired {
				return true, nil
			}
		}
		if !r.Unjudged() {
			return false, nil
		}
		k.log(n).WithField("trouble", trouble(n, r)).Info("a running container cannot be judged yet")
		if !k.pause(p, try) {
			return false, k.ctx.Err()
		}
		if k.countReported(n, p) {
			return false, nil // repaired meanwhile
		}
	}
}

// pause waits before the next look at a container; it is false if there is none.
func (k *Keeper) pause(p *nsenter.Process, try int) bool {
	if try >= len(k.Later) {
		return false
	}
	select {
	case <-time.After(k.Later[try]):
	case <-k.ctx.Done():
		return false
	}
	return !p.Ended()
}
