// Package restores deals with restored containers: it waits a moment for the
// report of a repair that CRIU's action script or an OCI hook does, repairs what
// those did not repair, and counts every restore once.
//
//	event of the engine ─┐
//	report on the host ──┼→ claim → report, or repair → count → done
//	running container ───┘
package restores

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/autofs-restore-hook/autofs-restore-hook/agent/engine"
	"github.com/autofs-restore-hook/autofs-restore-hook/agent/status"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Repairer is host.Program, but for tests of its faults.
type Repairer interface {
	Repair(ctx context.Context, pid int) (*report.Report, error)
	Inspect(ctx context.Context, pid int) (*report.Report, error)
}

// Options are what a Keeper works with.
type Options struct {
	// Directory is where journal.Directory of the host is mounted.
	Directory string
	Metrics   *status.Metrics
	Repairer  Repairer
	Log       logrus.FieldLogger
	// Workers bounds how many runs of autofs-restore-hook there are at a time.
	Workers int
	// Grace is how long a run by an OCI hook's watcher may take to begin. CRIU's
	// action script has ended when the engine says that the container runs.
	Grace time.Duration
	// Later are the pauses before another look at a container of which something
	// could not be judged; after the last one it is left as it is.
	Later []time.Duration
	// PodOf returns a container's pod; nil if no Events are posted.
	PodOf func(ctx context.Context, namespace, container string) (engine.Pod, error)
	// Warn posts an Event; it returns at once.
	Warn func(pod engine.Pod, reason, message string) bool
}

// Keeper deals with restores. It is an engine.Handler.
type Keeper struct {
	Options
	reports reports
	claims  *claims
	workers chan struct{}
	group   sync.WaitGroup
	ctx     context.Context

	mu   sync.Mutex
	runs map[*time.Time]struct{} // when each run of autofs-restore-hook began
}

const (
	// poll is the pause between two looks for a report.
	poll = 10 * time.Millisecond
	// settle is how long a run may be without the container's lock: it saves its report
	// after it has released the lock, and has none while it re-executes itself.
	settle = 30 * time.Millisecond
	// attempts bounds how often a repair that crashes is started.
	attempts = 3
	// longest is how long a run may take: it ends after 8 s by itself, and is
	// killed after 10.
	longest = time.Minute
)

// New returns a Keeper whose work ends soon after ctx.
func New(ctx context.Context, o Options) (*Keeper, error) {
	c, err := openClaims(filepath.Join(o.Directory, "agent"))
	if err != nil {
		return nil, err
	}
	return &Keeper{
		Options: o, reports: reports(filepath.Join(o.Directory, "reports")), claims: c,
		workers: make(chan struct{}, o.Workers), ctx: ctx, runs: map[*time.Time]struct{}{},
	}, nil
}

// WatchReports deals with every report on the host and with every new one, until
// ctx ends. It calls ready once it watches.
func (k *Keeper) WatchReports(ctx context.Context, ready func()) error {
	return k.reports.watch(ctx, ready, k.reported)
}

// Sweep forgets the restored processes that have ended.
func (k *Keeper) Sweep() error {
	_, err := k.claims.sweep()
	return err
}

// Stuck is an error if a run of autofs-restore-hook does not end even though it
// was killed. Its worker is lost until the agent is restarted.
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

// Wait returns when no work is under way.
func (k *Keeper) Wait() { k.group.Wait() }

// Restored deals with a container that was restored. It does not wait.
func (k *Keeper) Restored(n engine.Notice) {
	k.begin(n, func(p *nsenter.Process) bool {
		return k.countReported(n, p) || k.awaitReport(n, p) || k.repair(n, p)
	})
}

// Running deals with a running container that may have been restored without an
// event. It looks at each one once; one without autofs mounts costs a look at its
// mount table. It does not wait.
func (k *Keeper) Running(n engine.Notice) {
	k.begin(n, func(p *nsenter.Process) bool {
		if k.countReported(n, p) || !showsAutofs(p) {
			return true
		}
		stale, err := k.stale(n, p)
		switch {
		case err != nil && p.Alive() == nil:
			k.log(n).WithError(err).Error("a running container could not be inspected")
			return false
		case err != nil || !stale:
			return true
		}
		k.log(n).Info("a restore was missed")
		k.Metrics.Missed.Inc()
		return k.repair(n, p)
	})
}

// reported deals with a report that was written.
func (k *Keeper) reported(container string) {
	r, err := k.reports.read(container)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		k.Log.WithField("container", container).WithError(err).Error("a report cannot be read")
		return
	}
	by := status.By(r.Trigger)
	if by == status.ByPerson && r.Outcome == report.NothingToDo {
		return // a repair of a container that need not have been restored
	}
	n := engine.Notice{Container: container, PID: r.PID}
	k.begin(n, func(p *nsenter.Process) bool {
		if !r.isAbout(p) {
			return false
		}
		k.count(n, r.Report, by)
		return k.retryHook(n, r.Report, p)
	})
}

// begin claims a restore and does work on it in a goroutine. The work reports
// whether all is done.
func (k *Keeper) begin(n engine.Notice, work func(p *nsenter.Process) (done bool)) {
	p, err := nsenter.Open(n.PID)
	if err != nil {
		if !n.Started.IsZero() {
			k.Metrics.Gone.Inc()
			k.log(n).WithError(err).Info("a restored container has ended already")
		}
		return
	}
	key := p.Identity()
	if !k.claims.claim(key) {
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
			k.claims.release(key)
			return
		}
		if err := k.claims.done(key); err != nil {
			k.log(n).WithError(err).Error("a restore may be counted again after a restart of the agent")
		}
	}()
}

// countReported counts a restore that has a report already, and reports whether all is done
// then.
func (k *Keeper) countReported(n engine.Notice, p *nsenter.Process) bool {
	r, err := k.reports.read(n.Container)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			k.log(n).WithError(err).Error("a report cannot be read")
		}
		return false
	}
	if !r.isAbout(p) {
		return false
	}
	k.count(n, r.Report, status.By(r.Trigger))
	return k.retryHook(n, r.Report, p)
}

// retryHook repairs a container that a hook repaired in part: hooks are called only once,
// and may have left something for the next run. It is false if the agent ends first.
func (k *Keeper) retryHook(n engine.Notice, r *report.Report, p *nsenter.Process) bool {
	by := status.By(r.Trigger)
	if by != status.ByActionScript && by != status.ByHook || r.Outcome != report.Failed && r.Outcome != report.Partial {
		return true
	}
	k.log(n).WithField("outcome", r.Outcome).Info("a hook's repair is tried again")
	return k.repair(n, p)
}

// awaitReport is countReported, for the grace, and for as long as another run of
// autofs-restore-hook is at work on the container.
func (k *Keeper) awaitReport(n engine.Notice, p *nsenter.Process) bool {
	var lastLocked time.Time
	for began := time.Now(); ; {
		select {
		case <-time.After(poll):
		case <-k.ctx.Done():
			return false
		}
		locked := journal.NewStore(k.Directory).Locked(p)
		if k.countReported(n, p) {
			return true
		}
		now := time.Now()
		if locked {
			lastLocked = now
		}
		if now.Sub(began) > k.Grace && now.Sub(lastLocked) > settle || now.Sub(began) > longest {
			return false
		}
	}
}

// work takes a worker while f runs; it is false if the agent ends.
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
