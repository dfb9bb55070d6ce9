package restores

import (
	"context"
	"fmt"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/agent/engine"
	"github.com/autofs-restore-hook/autofs-restore-hook/agent/status"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Later are pauses of Options.Later that fit the usual reason, a process that waits
// for a slow server.
var Later = []time.Duration{5 * time.Second, 15 * time.Second, time.Minute, 5 * time.Minute}

// repair repairs a container that no hook has repaired, and counts it after the last
// look. It is false if the agent ends first.
func (k *Keeper) repair(n engine.Notice, p *nsenter.Process) bool {
	for look := 0; ; look++ {
		report, ended := k.run(n, p)
		if report == nil {
			return ended
		}
		if look == 0 && !n.Started.IsZero() {
			k.Metrics.Reaction(time.Since(n.Started))
		}
		if report.Unjudged() && look == 1 {
			message := trouble(n, report) // reported before the last look
			k.log(n).WithField("trouble", message).Error("restored; what cannot be judged is looked at again")
			k.event(n, message)
		}
		if report.Unjudged() && k.pause(p, look) {
			continue
		}
		if k.ctx.Err() != nil && report.Unjudged() {
			return false // the next agent looks
		}
		k.count(n, report, status.ByAgent)
		return true
	}
}

// run runs a repair. The report is nil if the agent ends first, or the container
// has ended.
func (k *Keeper) run(n engine.Notice, p *nsenter.Process) (report *hook.Report, ended bool) {
	var err error
	pause := 100 * time.Millisecond
	for try := 1; try <= attempts; try++ {
		// A repair that runs is finished, even if the agent is asked to end.
		if !k.work(func() {
			report, err = k.Repairer.Repair(context.WithoutCancel(k.ctx), n.PID)
		}) {
			return nil, false
		}
		if err == nil {
			return report, false
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
	return &hook.Report{
		Container: n.Container, PID: n.PID, Outcome: hook.Failed,
		Error: fmt.Sprintf("%d runs gave no report; the last one: %v", attempts, err),
	}, false
}

// stale reports whether a container has mounts that a repair would cure. What cannot
// be judged is looked at again, a few times.
func (k *Keeper) stale(n engine.Notice, p *nsenter.Process) (bool, error) {
	for try := 0; ; try++ {
		var report *hook.Report
		var err error
		if !k.work(func() { report, err = k.Repairer.Inspect(k.ctx, n.PID) }) {
			return false, context.Cause(k.ctx)
		}
		if err != nil {
			return false, err
		}
		for i := range report.Mounts {
			if o := report.Mounts[i].Outcome; report.Outcome == hook.Planned && o != hook.Healthy && o != hook.Unrepaired {
				return true, nil
			}
		}
		if !report.Unjudged() {
			return false, nil
		}
		k.log(n).WithField("trouble", trouble(n, report)).Info("a running container cannot be judged yet")
		if !k.pause(p, try) {
			return false, k.ctx.Err()
		}
		if k.known(n, p) {
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
