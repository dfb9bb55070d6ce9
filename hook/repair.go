package hook

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/cure"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/stage"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/systemd"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// repair cures the stale mounts of a running container, verifies the result and
// returns the report, which is also saved unless there was nothing to do or an earlier call
// at this restore has saved its own.
func (r Runner) repair(ctx context.Context, e Event) (*report.Report, error) {
	begin := time.Now()
	rep := r.newReport(e)
	r.Warn = report.CollectWarnings(r.Warn, &rep.Warnings)
	err := r.repairInto(ctx, e, rep)
	rep.Finish(begin, err)
	if rep.Container != "" && !rep.Repeated && (rep.Outcome != report.NothingToDo || len(rep.Mounts) > 0) {
		if saveErr := r.saveReport(rep); saveErr != nil {
			r.Warn(saveErr)
		}
	}
	return rep, err
}

func (r Runner) newReport(e Event) *report.Report {
	return &report.Report{
		Schema: report.Schema, Version: r.Version, Time: time.Now().UTC().Truncate(time.Millisecond),
		PID: e.PID, Trigger: e.Trigger, Stage: e.Stage, Mounts: []report.Mount{},
	}
}

func (r Runner) saveReport(rep *report.Report) error {
	data, err := rep.Encode()
	if err != nil {
		return err
	}
	return r.journal().SaveReport(rep.Container, data)
}

func (r Runner) repairInto(ctx context.Context, e Event, rep *report.Report) error {
	init, err := nsenter.Open(e.PID)
	if err != nil {
		return err
	}
	defer init.Close()
	if err := init.CheckForeign(); err != nil {
		return e.unlessHost(err)
	}
	rep.Container = r.containerName(e, init)
	r.named(rep.Container)
	criu, handover := r.loadHandover(e)
	if criu != nil {
		defer criu.Close()
		defer r.journal().LeavePlace(criu)
	}
	protect := sync.OnceFunc(func() { r.protect(init) })
	if handover != nil && handover.MayCallSystemd() {
		protect()
	}
	lock, err := r.journal().Lock(ctx, init)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	if handover != nil {
		var done bool
		if handover, done = r.currentHandover(criu, init, handover); done {
			rep.Mounts, rep.Repeated = append(rep.Mounts, handover.Reports...), true
			return nil // called twice for this stage
		}
	}
	c, err := container.Open(init, e.Visitors)
	if err != nil {
		return err
	}
	defer c.Close()
	c.Protect = protect
	if handover == nil {
		return r.repairWithoutHandover(ctx, e, c, rep)
	}
	if err := r.repairContainer(ctx, e, c, handover, rep); err != nil {
		return err
	}
	r.endRestore(ctx, criu, handover, rep)
	return nil
}

// repairWithoutHandover repairs a container for which no earlier stage of the restore ran.
func (r Runner) repairWithoutHandover(ctx context.Context, e Event, c *container.Container, rep *report.Report) error {
	if !c.HasAutofs() && !r.journal().HasEntries(c.Init) {
		return nil
	}
	c.Protect()
	r.journal().Sweep() // with a handover Reserve has swept
	return r.repairContainer(ctx, e, c, &journal.Handover{}, rep)
}

// endRestore stops the helpers of a restore, and hands its result over to a second call at
// this stage.
func (r Runner) endRestore(ctx context.Context, criu *nsenter.Process, handover *journal.Handover, rep *report.Report) {
	handover.Stage, handover.Reports, handover.Roots = stage.Repair, rep.Mounts, nil
	if err := errors.Join(handover.StopHelpers(ctx), r.journal().SaveHandover(criu, handover)); err != nil {
		r.Warn(err)
	}
}

// repairContainer repairs an open container. known is the handover of the earlier stages,
// empty if there were none.
func (r Runner) repairContainer(ctx context.Context, e Event, c *container.Container, known *journal.Handover, rep *report.Report) error {
	r.prepareSystemd(c)
	rep.Warnings = append(rep.Warnings, known.Warnings...)
	session := cure.NewSession(c, r.journal(), r.Warn)
	defer session.Close()
	session.Recover(ctx)
	session.TakeRoots(known)
	snapshot, err := r.snapshot(e, c, known)
	if err != nil {
		return err
	}
	decisions, asleep := plan.New(snapshot), c.Asleep(snapshot, known.Awake)
	if len(asleep) > 0 || plan.CallsSystemd(decisions) {
		c.Protect() // before the first change: it may re-execute this program
	}
	repair := session.NewRepair(snapshot, decisions, e.KillWaiters)
	repair.Apply(ctx)
	wakeErr := c.Wake(ctx, asleep)
	if wakeErr != nil {
		r.Warn(wakeErr)
	}
	rep.Describe(snapshot, repair.Plan)
	rep.AddUnmounted(c.Main().ID, known.Unmounted)
	repair.CountWaiters(ctx, rep, wakeErr == nil)
	if err := r.journal().SetConfirmed(c.Init, plan.Known(snapshot, repair.Plan)); err != nil {
		r.Warn(err)
	}
	return nil
}

// prepareSystemd warns if the runtime has restored the container into a wrong control
// group, and rearms systemd's memory pressure watch.
func (r Runner) prepareSystemd(c *container.Container) {
	if !c.HasAutofs() {
		return
	}
	for _, text := range c.GroupWarnings() {
		r.Warn(errors.New(text))
	}
	if id, err := master.Identify(c.Init); err == nil && id.Kind == master.Systemd {
		if _, err := systemd.RearmPressure(c.Init); err != nil {
			r.Warn(err)
		}
	}
}

// loadHandover opens the restoring process, nil if it has ended or is unknown, and loads
// the handover of the earlier stages, nil if there is none.
func (r Runner) loadHandover(e Event) (*nsenter.Process, *journal.Handover) {
	if e.CRIU <= 0 {
		return nil, nil
	}
	criu, err := nsenter.Open(e.CRIU)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var handover *journal.Handover
	if err == nil {
		handover, err = r.journal().LoadHandover(criu)
	}
	if err != nil {
		r.Warn(err)
	}
	return criu, handover
}

// currentHandover reloads the handover under the lock. current is nil if the handover
// is about another container that the same CRIU process restored; done reports whether
// Repair has already run.
func (r Runner) currentHandover(criu, init *nsenter.Process, h *journal.Handover) (current *journal.Handover, done bool) {
	if reloaded, err := r.journal().LoadHandover(criu); err == nil && reloaded != nil {
		h = reloaded
	}
	if h.Init != init.Identity() && (h.Init != "" || h.Stage != stage.Reserve) {
		return nil, false
	}
	return h, h.Stage == stage.Repair
}
