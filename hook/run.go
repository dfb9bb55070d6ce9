package hook

import (
	"context"
	"fmt"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/forecast"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/images"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/waiters"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// RunDirectory is where reports, locks and records of restores lie.
const RunDirectory = "/run/autofs-restore-hook"

// Deadline bounds a whole run: it ends before the 10 s that a hooks.d file
// gives it.
const Deadline = 8 * time.Second

// holderLifetime bounds the life of a holder whose CRIU neither goes on nor
// ends.
const holderLifetime = 10 * time.Minute

// Runner carries out events.
type Runner struct {
	// Directory is RunDirectory, but for tests.
	Directory string
	// Config is what the administrator chose.
	Config Config
	// Warn is told what went wrong without ending the run; never nil.
	Warn func(error)
	// Note, if not nil, is told what was done that no report holds.
	Note func(string)
	// Machine, if not nil, has Inspect also tell what CRIU would fail at.
	Machine *forecast.Machine
	// Protect, if not nil, is called before anything of this process is in reach
	// of the given process of a container. It may re-execute the program.
	Protect func(pid int) error
}

// protect keeps the container from what is ours. Where it fails the work is done
// all the same.
func (r Runner) protect(init *nsenter.Process) {
	if r.Protect == nil {
		return
	}
	if err := r.Protect(init.PID()); err != nil {
		r.Warn(err)
	}
}

func (r Runner) note(text string) {
	if r.Note != nil {
		r.Note(text)
	}
}

// Run does what an event asks for. The report is nil at a moment that makes
// none. The error is also in the report.
func (r Runner) Run(ctx context.Context, e Event) (*Report, error) {
	r.Warn = briefly(r.Warn)
	if e.Watch {
		return r.watch(ctx, e)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, Deadline, fmt.Errorf("not finished within %s", Deadline))
	defer cancel()
	switch e.Moment {
	case Reserve:
		if e.PID > 0 {
			return nil, r.leaveWatcher(e)
		}
		return nil, r.reserve(ctx, e)
	case Prepare:
		return nil, r.prepare(e)
	case Preserve:
		return nil, r.preserve(ctx, e)
	default:
		return r.repair(ctx, e)
	}
}

// readImages reads the checkpoint images; nil without an error if no directory
// is known.
func readImages(dir string) (*images.Set, error) {
	if dir == "" {
		return nil, nil //nolint:nilnil // an event without images
	}
	set, err := images.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("checkpoint images: %w", err)
	}
	return set, nil
}

// Inspect looks at a container and plans, changing nothing.
func (r Runner) Inspect(ctx context.Context, e Event) (*Report, error) {
	r.Warn = briefly(r.Warn)
	ctx, cancel := context.WithTimeoutCause(ctx, Deadline, fmt.Errorf("not finished within %s", Deadline))
	defer cancel()
	begin := time.Now()
	report := &Report{PID: e.PID, Trigger: e.Trigger, Moment: e.Moment, Mounts: []MountReport{}, Planned: true}
	err := r.inspectInto(ctx, e, report)
	report.finish(begin, err)
	return report, err
}

func (r Runner) inspectInto(ctx context.Context, e Event, report *Report) error {
	init, err := nsenter.Open(e.PID)
	if err != nil {
		return err
	}
	defer init.Close()
	sc, err := look(init, e.Everyone)
	if err != nil {
		return err
	}
	defer sc.close()
	report.Container = store{r.Directory}.containerName(e, init)
	if sc.hasAutofs() {
		r.protect(init)
	}
	if err := sc.loadParkings(store{r.Directory}); err != nil {
		r.Warn(err)
	}
	snapshot, err := r.snapshot(e, sc, &record{})
	if err != nil {
		return err
	}
	report.describe(snapshot, Plan(snapshot))
	if r.Machine != nil {
		report.Checkpoint = r.obstacles(ctx, sc, snapshot)
	}
	if text := sc.misplaced(); text != "" {
		report.Warnings = append(report.Warnings, text)
	}
	return nil
}

// snapshot describes the container, and asks none of its processes. rec is what
// earlier moments of the restore left.
func (r Runner) snapshot(e Event, sc *scene, rec *record) (*Snapshot, error) {
	snapshot := &Snapshot{
		PID: e.PID, Strategy: e.Strategy, Restore: rec.Moment != "" || e.Watch, Restored: restored(sc.init),
		ReexecuteReplaced: r.Config.ReexecuteReplaced,
	}
	if !sc.hasAutofs() {
		return snapshot, nil
	}
	var err error
	if snapshot.Mounts, err = sc.survey(); err != nil {
		return nil, err
	}
	if e.Everyone {
		if err := sc.checkFirst(snapshot.Mounts); err != nil {
			r.Warn(err)
		}
	}
	if err := (store{r.Directory}).markSettled(sc.init, snapshot.Mounts); err != nil {
		r.Warn(err)
	}
	rec.describe(snapshot.Mounts, sc.main().id)
	nameUnits(snapshot.Mounts)
	waiting, err := sc.waiters()
	if err != nil {
		return nil, err
	}
	snapshot.Waiters = waitersInside(waiting, snapshot.Mounts)
	if !snapshot.Restore {
		sc.markRestored(snapshot)
	}
	return snapshot, nil
}

// takeRoots copies the roots that the holder keeps.
func (r Runner) takeRoots(sc *scene, rec *record) {
	if len(rec.Roots) == 0 {
		return
	}
	files, err := rec.Holder.OpenAll()
	if err != nil {
		r.Warn(err)
	}
	for _, root := range rec.Roots {
		if root.Index >= 0 && root.Index < len(files) && files[root.Index] != nil {
			sc.roots[rootKey{root.Namespace, root.Mount}] = files[root.Index]
			files[root.Index] = nil
		}
	}
	for _, f := range files {
		f.Close() // nil for those that are in use
	}
}

func (s *scene) waiters() ([]Waiter, error) {
	found, err := waiters.Find(s.members)
	if err != nil {
		return nil, err
	}
	var list []Waiter
	for _, w := range found {
		list = append(list, Waiter{PID: w.PID, Command: w.Command, Path: w.Path, process: w.Process, start: w.ProcessStart})
	}
	return list, nil
}
