// Command autofs-restore-agent makes the nodes of a Kubernetes cluster restore
// containers with automounts. It runs on every node, as a DaemonSet
// (manifests/kubernetes): it keeps the hook installed, repairs what the hook
// could not, and says what happened.
package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/autofs-restore-hook/autofs-restore-hook/agent/health"
	"github.com/autofs-restore-hook/autofs-restore-hook/agent/host"
	"github.com/autofs-restore-hook/autofs-restore-hook/agent/kube"
	"github.com/autofs-restore-hook/autofs-restore-hook/agent/ledger"
	"github.com/autofs-restore-hook/autofs-restore-hook/agent/metrics"
	"github.com/autofs-restore-hook/autofs-restore-hook/agent/repair"
	"github.com/autofs-restore-hook/autofs-restore-hook/agent/reports"
	"github.com/autofs-restore-hook/autofs-restore-hook/agent/restores"
)

// versionNumber is set by the linker.
var versionNumber = "development"

const (
	exitFailed = 1
	exitUsage  = 2
)

// sweepEvery is how often ended processes are forgotten.
const sweepEvery = time.Minute

func main() {
	o, err := parse(os.Args[1:], os.Stderr)
	if err != nil {
		os.Exit(exitUsage)
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: o.level}))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, o, log); err != nil {
		log.Error("ended", "error", err)
		os.Exit(exitFailed)
	}
}

// agent is all that runs.
type agent struct {
	options
	log     *slog.Logger
	metrics *metrics.Metrics
	program repair.Program
	keeper  *restores.Keeper

	silent  atomic.Pointer[error] // what keeps the engine from being reachable
	unseen  atomic.Pointer[error] // the same of the reports
	met     atomic.Bool           // the engine was reachable before
	checked func(context.Context) error
}

var errNotYet = errors.New("not yet")

func run(ctx context.Context, o options, log *slog.Logger) error {
	program, err := host.Open(o.hook)
	if err != nil {
		return err
	}
	l, err := ledger.Open(filepath.Join(o.directory, "agent"))
	if err != nil {
		return err
	}
	a := &agent{options: o, log: log, metrics: metrics.New(versionNumber, o.engine), program: repair.Program{Program: program}}
	a.silent.Store(&errNotYet)
	a.unseen.Store(&errNotYet)
	version, err := a.program.Version(ctx)
	if err != nil {
		return err
	}
	log.Info("started", "version", versionNumber, "hook", version, "engine", o.engine, "node", o.node)

	keep := restores.Options{
		Later:   restores.Later,
		Reports: reports.Directory(filepath.Join(o.directory, "reports")), Ledger: l, Metrics: a.metrics, Repairer: a.program,
		Log: log, Workers: o.workers, Grace: o.grace,
	}
	engine, err := a.newEngine()
	if err != nil {
		return err
	}
	if queue := a.events(); queue != nil {
		keep.PodOf, keep.Warn = engine.podOf, queue.Warning
		go queue.Run(ctx)
	}
	a.keeper = restores.New(ctx, keep)
	go a.watchReports(ctx, keep.Reports)
	go engine.watch(ctx, a.keeper)
	go a.sweep(ctx, l)
	checked, uninstall := a.keepInstalled(ctx)
	a.checked = checked

	err = a.serve(ctx)
	log.Info("ending: what is under way is finished first")
	a.keeper.Wait()
	uninstall()
	return err
}

// events makes the queue of Kubernetes Events; nil if there are none.
func (a *agent) events() *kube.Queue {
	if !a.postEvents {
		return nil
	}
	client, err := kube.InCluster(os.Getenv, a.serviceAccount, a.node, versionNumber)
	if err != nil {
		a.log.Warn("no Events are posted", "error", err)
		return nil
	}
	const length = 100
	return kube.NewQueue(client, length, func(err error, lost bool) {
		switch {
		case err == nil:
			a.metrics.EventsPosted.Inc()
		case lost:
			a.metrics.EventsLost.Inc()
			a.log.Error("an Event is lost", "error", err)
		default:
			a.log.Warn("an Event could not be posted", "error", err)
		}
	})
}

// watchReports watches reports until ctx ends, and begins again if the watch
// fails.
func (a *agent) watchReports(ctx context.Context, dir reports.Directory) {
	for ctx.Err() == nil {
		var none error
		err := dir.Watch(ctx, func() { a.unseen.Store(&none) }, a.keeper.Reported)
		if ctx.Err() != nil {
			return
		}
		a.unseen.Store(&err)
		a.log.Error("reports are not watched", "error", err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

// sweep forgets processes that have ended.
func (a *agent) sweep(ctx context.Context, l *ledger.Ledger) {
	for {
		if _, err := l.Sweep(); err != nil {
			a.log.Warn("ended processes cannot be forgotten", "error", err)
		}
		select {
		case <-time.After(sweepEvery):
		case <-ctx.Done():
			return
		}
	}
}

// engineState notes whether the engine is reachable.
func (a *agent) engineState(err error) {
	was := a.silent.Swap(&err)
	switch {
	case err != nil:
		a.metrics.Connected.Set(0)
	case *was != nil:
		a.metrics.Connected.Set(1)
		if a.met.Swap(true) {
			a.metrics.Reconnects.Inc()
		}
	}
}

// serve answers Prometheus and the kubelet until ctx ends.
func (a *agent) serve(ctx context.Context) error {
	reported := health.Check{Name: "reports", Ask: func(context.Context) error { return *a.unseen.Load() }}
	stuck := health.Check{Name: "repairs", Ask: func(context.Context) error { return a.keeper.Stuck() }}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.metrics.Registry, promhttp.HandlerOpts{}))
	mux.Handle("GET /healthz", health.Handler(reported, stuck))
	mux.Handle("GET /readyz", health.Handler(
		reported, stuck,
		health.Check{Name: "engine", Ask: func(context.Context) error { return *a.silent.Load() }},
		health.Check{Name: "host", Ask: func(ctx context.Context) error { _, err := a.program.Version(ctx); return err }},
		health.Check{Name: "hook", Ask: a.checked},
	))
	server := &http.Server{
		Addr: a.listen, Handler: mux,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second, WriteTimeout: 15 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10,
	}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = server.Shutdown(ctx) // who still asks is cut off
		return nil
	}
}
