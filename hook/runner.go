package hook

import (
	"context"
	"fmt"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/criuimage"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/forecast"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/stage"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Deadline bounds a whole run: it ends before the 10 s that a hooks.d file
// gives it.
const Deadline = 8 * time.Second

// restoreTime bounds how long a restore may take. A helper whose CRIU neither goes on
// nor ends does not live longer.
const restoreTime = 10 * time.Minute

// Runner carries out events.
type Runner struct {
	// Directory is that of the journal, [Directory] but for tests.
	Directory string
	// Version is that of the program, for reports.
	Version string
	// Config is what the administrator chose.
	Config Config
	// Warn is told what went wrong without ending the run; never nil.
	Warn func(error)
	// Note, if not nil, is told what was done that no report holds.
	Note func(string)
	// Named, if not nil, gets the container's name as soon as it is known.
	Named func(container string)
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

func (r Runner) journal() journal.Store { return journal.NewStore(r.Directory) }

func (r Runner) note(text string) {
	if r.Note != nil {
		r.Note(text)
	}
}

func (r Runner) named(container string) {
	if r.Named != nil {
		r.Named(container)
	}
}

// Run does what an event asks for. The report is nil at a moment that makes
// none. The error is also in the report.
func (r Runner) Run(ctx context.Context, e Event) (*report.Report, error) {
	r.Warn = report.TruncateWarnings(r.Warn)
	if e.Watch {
		return r.watch(ctx, e)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, Deadline, fmt.Errorf("not finished within %s", Deadline))
	defer cancel()
	switch e.Stage {
	case stage.Reserve:
		if e.PID > 0 {
			return nil, r.leaveWatcher(e)
		}
		return nil, r.reserve(ctx, e)
	case stage.Prepare:
		return nil, r.prepare(e)
	case stage.Preserve:
		return nil, r.preserve(ctx, e)
	default:
		return r.repair(ctx, e)
	}
}

// readImages reads the checkpoint images; nil without an error if no directory
// is known.
func readImages(dir string) (*criuimage.Set, error) {
	if dir == "" {
		return nil, nil //nolint:nilnil // an event without images
	}
	set, err := criuimage.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("checkpoint images: %w", err)
	}
	return set, nil
}
