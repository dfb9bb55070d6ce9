package hook

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/systemd"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/cure"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/stage"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// repair works while the container runs: it cures what is stale, verifies it
// and reports.
func (r Runner) repair(ctx context.Context, e Event) (*report.Report, error) {
	begin := time.Now()
	rep := r.newReport(e)
	r.Warn = report.CollectWarnings(r.Warn, &rep.Warnings)
	err := r.repairInto(ctx, e, rep)
	rep.Finish(begin, err)
	if rep.Container != "" && (rep.Outcome != report.NothingToDo || len(rep.Mounts) > 0) {
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
	}
	if handover != nil {
		r.protect(init)
	}
	lock, err := r.journal().Lock(ctx, init)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	if handover != nil {
		var done bool
		if handover, done = r.currentHandover(criu, init, handover); done {
			rep.Mounts = append(rep.Mounts, handover.Reports...)
			return nil // called twice for this stage
		}
	}
	sc, err := container.Open(init, e.Everyone)
	if err != nil {
		return err
	}
	defer sc.Close()
	if handover == nil {
		if !sc.HasAutofs() && !r.journal().HasEntries(init) {
			return nil
		}
		r.protect(init)
		r.journal().Sweep() // where there is a handover, Reserve did
	}
	return r.repairContainer(ctx, e, sc, criu, handover, rep)
}

// repairContainer repairs an open container. handover is what earlier stages left,
// nil for nothing; criu is the process that restores, if there is a handover.
func (r Runner) repairContainer(ctx context.Context, e Event, sc *container.Container, criu *nsenter.Process, handover *journal.Handover, rep *report.Report) error {
	r.prepareSystemd(sc)
	known := handover
	if known == nil {
		known = &journal.Handover{}
	}
	rep.Warnings = append(rep.Warnings, known.Warnings...)
	session := cure.NewSession(sc, r.journal(), r.Warn)
	defer session.Close()
	session.Recover(ctx)
	session.TakeRoots(known)
	snapshot, err := r.snapshot(e, sc, known)
	if err != nil {
		return err
	}
	repair := session.NewRepair(snapshot, plan.New(snapshot), e.KillWaiters)
	repair.Apply(ctx)
	if err := sc.WakeSystemd(ctx, snapshot); err != nil {
		r.Warn(err)
	}
	rep.Describe(snapshot, repair.Plan)
	rep.AddUnmounted(sc.Main().ID, known.Unmounted)
	repair.CountWaiters(rep)
	if err := r.journal().Confirm(sc.Init, plan.Known(snapshot, repair.Plan)); err != nil {
		r.Warn(err)
	}
	if handover != nil {
		handover.Stage, handover.Reports, handover.Roots = stage.Repair, rep.Mounts, nil
		if err := errors.Join(handover.Holder.Stop(ctx), r.journal().SaveHandover(criu, handover)); err != nil {
			r.Warn(err)
		}
	}
	return nil
}

// prepareSystemd deals with what the runtime's restore has done to a systemd.
func (r Runner) prepareSystemd(sc *container.Container) {
	if !sc.HasAutofs() {
		return
	}
	if text := sc.AllInOwnGroup(); text != "" {
		r.Warn(errors.New(text))
	}
	if id, err := master.Identify(sc.Init); err == nil && id.Kind == master.Systemd {
		if _, err := systemd.RearmPressure(sc.Init); err != nil {
			r.Warn(err)
		}
	}
}

// loadHandover opens the restoring process and loads what the earlier stages of this
// restore left. Both are nil if there is none.
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

// currentHandover reads the handover again under the lock. It is nil if it is about
// another container that the same CRIU restored; done if Repair has run.
func (r Runner) currentHandover(criu, init *nsenter.Process, h *journal.Handover) (current *journal.Handover, done bool) {
	if h.Init != init.Identity() && (h.Init != "" || h.Stage != stage.Reserve) {
		return nil, false
	}
	if again, err := r.journal().LoadHandover(criu); err == nil && again != nil && again.Stage == stage.Repair {
		return again, true
	}
	return h, false
}
