package hook

import (
	"context"
	"fmt"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/forecast"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/helper/spawn"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/stage"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Deadline is the time limit of a run. It is below the timeout of 10 s in the hooks.d
// file.
const Deadline = 8 * time.Second

// Limit is the time limit of the run for the event. Reserve may also wait for other
// restores.
func (e Event) Limit() time.Duration {
	if e.Stage == stage.Reserve {
		return Deadline + journal.QueueTime
	}
	return Deadline
}

// restoreTime is the time limit of a restore, and of the helpers that work for it.
const restoreTime = 10 * time.Minute

// Runner carries out events.
type Runner struct {
	// Directory is that of the journal: [journal.Directory], except in tests.
	Directory string
	// Version is that of the program, for reports.
	Version string
	// Config is the administrator's configuration.
	Config Config
	// Warn gets errors that do not end the run; never nil.
	Warn func(error)
	// Note, if not nil, gets messages about changes that no report has.
	Note func(string)
	// Named, if not nil, gets the container's name as soon as it is known.
	Named func(container string)
	// Restored, if not nil, is called when the restore that a watcher waits for has ended.
	Restored func()
	// Machine, if not nil, makes Inspect report problems with a checkpoint.
	Machine *forecast.Machine
	// Protect, if not nil, is called before the given process of a container can reach
	// this process. It may re-execute the program.
	Protect func(pid int) error
}

// protect protects this process from the container. A failure is only a warning.
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

// Run handles an event. Only [stage.Repair] makes a report; at other stages it is nil. The
// error is also in the report.
func (r Runner) Run(ctx context.Context, e Event) (*report.Report, error) {
	r.Warn = report.TruncateWarnings(r.Warn)
	if e.Watch {
		return r.watch(ctx, e)
	}
	limit := e.Limit()
	ctx, cancel := context.WithTimeoutCause(ctx, limit-spawn.Took(), fmt.Errorf("not finished within %s", limit))
	defer cancel()
	switch e.Stage {
	case stage.Reserve:
		return nil, r.reserve(ctx, e)
	case stage.Prepare:
		if e.LeaveWatcher {
			return nil, r.prepareAndWatch(e)
		}
		return nil, r.prepare(e)
	case stage.Preserve:
		return nil, r.preserve(ctx, e)
	default:
		return r.repair(ctx, e)
	}
}
