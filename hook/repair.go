package hook

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// repair works while the container runs: it cures what is stale, verifies it
// and reports.
func (r Runner) repair(ctx context.Context, e Event) (*Report, error) {
	begin := time.Now()
	report := &Report{PID: e.PID, Trigger: e.Trigger, Moment: e.Moment, Mounts: []MountReport{}}
	r.Warn = collect(r.Warn, &report.Warnings)
	err := r.repairInto(ctx, e, report)
	report.finish(begin, err)
	if report.Container != "" && (report.Outcome != NothingToDo || len(report.Mounts) > 0) {
		if saveErr := report.save(r.Directory); saveErr != nil {
			r.Warn(saveErr)
		}
	}
	return report, err
}

func (r Runner) repairInto(ctx context.Context, e Event, report *Report) error {
	init, err := nsenter.Open(e.PID)
	if err != nil {
		return err
	}
	defer init.Close()
	if err := init.CheckForeign(); err != nil {
		return e.unlessHost(err)
	}
	s := store{r.Directory}
	report.Container = s.containerName(e, init)
	rec, criu, err := r.recordOf(s, e)
	if err != nil {
		r.Warn(err)
	}
	if criu != nil {
		defer criu.Close()
	}
	if rec != nil {
		r.protect(init)
	}
	lock, err := s.lock(ctx, init)
	if err != nil {
		return err
	}
	defer s.unlock(lock)
	if rec != nil {
		if rec.Init != init.Identity() && (rec.Init != "" || rec.Moment != Reserve) {
			rec = nil // of another container that the same CRIU restored
		} else if again, err := s.load(criu); err == nil && again != nil && again.Moment == Repair {
			report.Mounts = append(report.Mounts, again.Reports...)
			return nil // called twice for this stage
		}
	}
	sc, err := look(init, e.Everyone)
	if err != nil {
		return err
	}
	defer sc.close()
	if rec == nil {
		if !sc.hasAutofs() && !s.hasNotes(init) {
			return nil
		}
		r.protect(init)
		s.sweep() // where there is a record, Reserve did
	}
	if text := sc.misplaced(); text != "" && sc.hasAutofs() {
		r.Warn(errors.New(text))
	}
	if id, err := master.Identify(init); err == nil && id.Kind == master.Systemd && sc.hasAutofs() {
		if _, err := master.RearmPressure(init); err != nil {
			r.Warn(err)
		}
	}
	known := rec
	if rec == nil {
		known = &record{}
	}
	report.Warnings = append(report.Warnings, known.Warnings...)
	r.recover(ctx, s, sc)
	r.takeRoots(sc, known)
	snapshot, err := r.snapshot(e, sc, known)
	if err != nil {
		return err
	}
	w := &work{
		scene: sc, store: s, snapshot: snapshot, plan: Plan(snapshot), warn: r.Warn,
		killWaiters: e.KillWaiters, refused: map[int]bool{},
	}
	w.apply(ctx)
	if err := sc.wake(ctx, snapshot); err != nil {
		r.Warn(err)
	}
	report.describe(w.snapshot, w.plan)
	report.addUnmounted(sc.main().id, known.Unmounted)
	w.countWaiters(report)
	if err := s.settle(init, w.snapshot, w.plan); err != nil {
		r.Warn(err)
	}
	if criu != nil && rec != nil {
		rec.Moment, rec.Reports, rec.Roots = Repair, report.Mounts, nil
		if err := errors.Join(rec.Holder.Stop(ctx), s.save(criu, rec)); err != nil {
			r.Warn(err)
		}
	}
	return nil
}

// recordOf loads what the earlier moments of this restore left.
func (r Runner) recordOf(s store, e Event) (*record, *nsenter.Process, error) {
	if e.CRIU <= 0 {
		return nil, nil, nil
	}
	criu, err := nsenter.Open(e.CRIU)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	rec, err := s.load(criu)
	return rec, criu, err
}

// describe fills in what is known about each mount.
func (r *Report) describe(s *Snapshot, plan []Decision) {
	size := 0
	for _, d := range plan {
		m := s.Mounts[d.Mount].report(d)
		if size += m.size(); size > maxReport {
			m.shorten()
		}
		r.Mounts = append(r.Mounts, m)
	}
	r.Waiting = s.Waiters
}

// addUnmounted adds the offset triggers that Preserve has unmounted.
func (r *Report) addUnmounted(namespace uint64, paths []string) {
	for _, path := range paths {
		r.Mounts = append(r.Mounts, MountReport{
			Path: brief(path), MountNamespace: namespace, Type: autofs.Offset.String(),
			Master: MasterReport{Kind: string(master.Automount)}, Outcome: Reloaded, Reason: unmountedReason, CoveredBy: []string{},
		})
	}
}

// finish sets duration, error and outcome.
func (r *Report) finish(begin time.Time, err error) {
	r.DurationMS = float64(time.Since(begin).Microseconds()) / 1000
	if err != nil {
		r.Error = brief(err.Error())
		r.Unreadable = errors.Is(err, fs.ErrNotExist)
	}
	r.conclude()
}
