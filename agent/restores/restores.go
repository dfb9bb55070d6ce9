// Package restores deals with restored containers: it waits a moment for the
// report of a repair that somebody else does, repairs what nobody repaired, and
// counts every restore once.
//
//	event of the engine ─┐
//	report on the host ──┼→ Claim (ledger) → report, or repair → count → Done
//	running container ───┘
package restores

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/agent/ledger"
	"github.com/autofs-restore-hook/autofs-restore-hook/agent/metrics"
	"github.com/autofs-restore-hook/autofs-restore-hook/agent/pods"
	"github.com/autofs-restore-hook/autofs-restore-hook/agent/reports"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Notice is what an engine says about a container that was restored, or may
// have been.
type Notice struct {
	Namespace string // the engine's, "" if it has none
	Container string
	PID       int
	// Started is when the engine said that it runs; zero if nobody said so.
	Started time.Time
}

// Repairer is repair.Program, but for tests of its faults.
type Repairer interface {
	Repair(ctx context.Context, pid int) (*hook.Report, error)
	Inspect(ctx context.Context, pid int) (*hook.Report, error)
}

// Options are what a Keeper works with.
type Options struct {
	Reports  reports.Directory
	Ledger   *ledger.Ledger
	Metrics  *metrics.Metrics
	Repairer Repairer
	Log      *slog.Logger
	// Workers bounds how many runs of the light binary there are at a time.
	Workers int
	// Grace is how long a report of somebody else is waited for. CRIU's action
	// script has ended when the engine says that the container runs; an OCI hook's
	// watcher needs a moment.
	Grace time.Duration
	// Later are the pauses before another look at a container of which something
	// could not be judged; after the last one it is left as it is.
	Later []time.Duration
	// PodOf names a container's pod; nil if no Events are posted.
	PodOf func(ctx context.Context, namespace, container string) (pods.Pod, error)
	// Warn posts an Event; it must not wait.
	Warn func(pod pods.Pod, reason, message string) bool
}

// Keeper deals with restores.
type Keeper struct {
	Options
	workers chan struct{}
	group   sync.WaitGroup
	ctx     context.Context

	mu   sync.Mutex
	runs map[*time.Time]struct{} // when each run of the light binary began
}

// poll is the pause between two looks for a report.
const poll = 25 * time.Millisecond

// attempts bounds how often a repair that crashes is begun.
const attempts = 3

// New makes a Keeper whose work ends soon after ctx.
func New(ctx context.Context, o Options) *Keeper {
	return &Keeper{Options: o, workers: make(chan struct{}, o.Workers), ctx: ctx, runs: map[*time.Time]struct{}{}}
}

// longest is how long a run may take: it ends after 8 s by itself, and is killed
// after 10.
const longest = time.Minute

// Stuck is an error if a run of the light binary does not even end when it is
// killed. Its worker is lost until the agent starts anew.
func (k *Keeper) Stuck() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for began := range k.runs {
		if age := time.Since(*began); age > longest {
			return fmt.Errorf("a repair runs for %s and cannot be killed", age.Round(time.Second))
		}
	}
	return nil
}

// Wait returns when nothing is under way any more.
func (k *Keeper) Wait() { k.group.Wait() }

// Restored deals with a container that was restored. It does not wait.
func (k *Keeper) Restored(n Notice) {
	k.begin(n, func(p *nsenter.Process) bool {
		return k.known(n, p) || k.awaitReport(n, p) || k.repair(n, p)
	})
}

// Running deals with a running container that may have been restored while
// nobody listened. It looks at each one once, and at those without autofs mounts
// hardly at all. It does not wait.
func (k *Keeper) Running(n Notice) {
	k.begin(n, func(p *nsenter.Process) bool {
		if k.known(n, p) || !showsAutofs(p) {
			return true
		}
		stale, err := k.stale(n, p)
		switch {
		case err != nil && p.Alive() == nil:
			k.Log.Error("a running container could not be looked at", k.fields(n, "error", err)...)
			return false
		case err != nil || !stale:
			return true
		}
		k.Log.Info("a restore was missed", k.fields(n)...)
		k.Metrics.Missed.Inc()
		return k.repair(n, p)
	})
}

// Reported deals with a report that was written, whoever repaired.
func (k *Keeper) Reported(container string) {
	r, err := k.Reports.Read(container)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		k.Log.Error("a report cannot be read", "container", container, "error", err)
		return
	}
	by := metrics.By(r.Trigger)
	if by == metrics.ByPerson && r.Outcome == hook.NothingToDo {
		return // somebody repaired a container that need not have been restored
	}
	k.begin(Notice{Container: container, PID: r.PID}, func(p *nsenter.Process) bool {
		if !r.IsAbout(p) {
			return false
		}
		n := Notice{Container: container, PID: r.PID}
		k.count(n, r.Report, by)
		return k.again(n, r.Report, p)
	})
}

// begin claims a restore and does work on it, at the side. The work says
// whether all is done.
func (k *Keeper) begin(n Notice, work func(p *nsenter.Process) (done bool)) {
	p, err := nsenter.Open(n.PID)
	if err != nil {
		if !n.Started.IsZero() {
			k.Metrics.Gone.Inc()
			k.Log.Info("a restored container has ended already", k.fields(n, "error", err)...)
		}
		return
	}
	key := p.Identity()
	if !k.Ledger.Claim(key) {
		p.Close()
		return
	}
	k.group.Add(1)
	k.Metrics.Queued.Inc()
	go func() {
		defer k.group.Done()
		defer p.Close()
		done := work(p)
		k.Metrics.Queued.Dec()
		if !done {
			k.Ledger.Release(key)
			return
		}
		if err := k.Ledger.Done(key); err != nil {
			k.Log.Error("a restore may be counted twice after a restart of the agent", "error", err)
		}
	}()
}

// known counts a restore whose report is there already.
func (k *Keeper) known(n Notice, p *nsenter.Process) bool {
	r, err := k.Reports.Read(n.Container)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			k.Log.Error("a report cannot be read", k.fields(n, "error", err)...)
		}
		return false
	}
	if !r.IsAbout(p) {
		return false
	}
	k.count(n, r.Report, metrics.By(r.Trigger))
	return k.again(n, r.Report, p)
}

// again repairs a container whose repair by a hook did not do it all: hooks are
// called only once, and may have left something for the next run.
func (k *Keeper) again(n Notice, r *hook.Report, p *nsenter.Process) bool {
	by := metrics.By(r.Trigger)
	if by != metrics.ByActionScript && by != metrics.ByHook || r.Outcome != hook.Failed && r.Outcome != hook.Partial {
		return true
	}
	k.Log.Info("a hook's repair is tried again", k.fields(n, "outcome", r.Outcome)...)
	return k.repair(n, p)
}

// awaitReport is known, for a while.
func (k *Keeper) awaitReport(n Notice, p *nsenter.Process) bool {
	for end := time.Now().Add(k.Grace); time.Now().Before(end); {
		select {
		case <-time.After(poll):
		case <-k.ctx.Done():
			return false
		}
		if k.known(n, p) {
			return true
		}
	}
	return false
}

// work takes a worker for the time of f; it is false if the agent ends.
func (k *Keeper) work(f func()) bool {
	if k.ctx.Err() != nil {
		return false
	}
	select {
	case k.workers <- struct{}{}:
	case <-k.ctx.Done():
		return false
	}
	defer func() { <-k.workers }()
	began := time.Now()
	k.mu.Lock()
	k.runs[&began] = struct{}{}
	k.mu.Unlock()
	k.Metrics.Running.Inc()
	defer func() {
		k.Metrics.Running.Dec()
		k.mu.Lock()
		delete(k.runs, &began)
		k.mu.Unlock()
	}()
	f()
	return true
}
