// Command autofs-restore-agent makes the nodes of a Kubernetes cluster restore
// containers with automounts. It runs on every node, as a DaemonSet
// (manifests/kubernetes): it keeps autofs-restore-hook installed, repairs the
// restores that the hook could not, and reports them as metrics and Events.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/sirupsen/logrus"

	"github.com/autofs-restore-hook/autofs-restore-hook/agent/engine"
	"github.com/autofs-restore-hook/autofs-restore-hook/agent/host"
	"github.com/autofs-restore-hook/autofs-restore-hook/agent/kube"
	"github.com/autofs-restore-hook/autofs-restore-hook/agent/restores"
	"github.com/autofs-restore-hook/autofs-restore-hook/agent/status"
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
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		os.Exit(exitUsage)
	case o.version:
		fmt.Println("autofs-restore-agent", versionNumber)
		return
	}
	log := logrus.New()
	log.SetLevel(o.level)
	log.SetFormatter(&logrus.JSONFormatter{TimestampFormat: time.RFC3339Nano})
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, o, log); err != nil {
		log.WithError(err).Error("ended")
		os.Exit(exitFailed)
	}
}

// agent is all that runs.
type agent struct {
	options
	log     *logrus.Logger
	metrics *status.Metrics
	program *host.Program
	keeper  *restores.Keeper

	// What keeps the engine from being reachable, and reports from being watched.
	engineError, reportsError atomic.Pointer[error]
	connected                 atomic.Bool // the engine was reachable before
	checkInstalled            func(context.Context) error
}

// watcher watches a container engine.
type watcher interface {
	Run(ctx context.Context, handler engine.Handler)
	PodOf(ctx context.Context, namespace, container string) (engine.Pod, error)
}

func (a *agent) newWatcher() (watcher, error) {
	if a.engine == engineCRIO {
		return engine.NewCRIO(a.socket, a.log, a.engineState)
	}
	return &engine.Containerd{Socket: a.socket, Log: a.log, State: a.engineState}, nil
}

// Why the agent is not ready at its start.
var (
	errNotConnected = errors.New("the engine has not been reached yet")
	errNotWatching  = errors.New("the reports are not watched yet")
)

func run(ctx context.Context, o options, log *logrus.Logger) error {
	program, err := host.Open(o.hook)
	if err != nil {
		return err
	}
	version, err := program.Version(ctx)
	if err != nil {
		return err
	}
	log.WithFields(logrus.Fields{"version": versionNumber, "hook": version, "engine": o.engine, "node": o.node}).Info("started")
	a := &agent{options: o, log: log, metrics: status.New(versionNumber, o.engine), program: program}
	a.engineError.Store(&errNotConnected)
	a.reportsError.Store(&errNotWatching)
	watcher, err := a.newWatcher()
	if err != nil {
		return err
	}
	keep := restores.Options{
		Directory: o.directory, Metrics: a.metrics, Repairer: program, Log: log,
		Workers: o.workers, Grace: o.grace, Later: restores.Later,
	}
	if queue := a.events(); queue != nil {
		keep.PodOf, keep.Warn = watcher.PodOf, queue.Warning
		go queue.Run(ctx)
	}
	if a.keeper, err = restores.New(ctx, keep); err != nil {
		return err
	}
	go a.watchReports(ctx)
	go watcher.Run(ctx, a.keeper)
	go a.sweep(ctx)
	checkInstalled, uninstall := a.keepInstalled(ctx)
	a.checkInstalled = checkInstalled

	err = a.serve(ctx)
	log.Info("ending: repairs under way are finished first")
	a.keeper.Wait()
	uninstall()
	return err
}

// events returns the queue of Kubernetes Events; nil if there are none.
func (a *agent) events() *kube.Queue {
	if !a.postEvents {
		return nil
	}
	client, err := kube.InCluster(os.Getenv, a.serviceAccount, a.node, versionNumber)
	if err != nil {
		a.log.WithError(err).Warn("no Events are posted")
		return nil
	}
	const length = 100
	return kube.NewQueue(client, length, func(err error, lost bool) {
		switch {
		case err == nil:
			a.metrics.EventsPosted.Inc()
		case lost:
			a.metrics.EventsLost.Inc()
			a.log.WithError(err).Error("an Event is lost")
		default:
			a.log.WithError(err).Warn("an Event could not be posted")
		}
	})
}

// watchReports watches reports until ctx ends. It starts again if the watch fails.
func (a *agent) watchReports(ctx context.Context) {
	for ctx.Err() == nil {
		var none error
		err := a.keeper.WatchReports(ctx, func() { a.reportsError.Store(&none) })
		if ctx.Err() != nil {
			return
		}
		a.reportsError.Store(&err)
		a.log.WithError(err).Error("reports are not watched")
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

// sweep forgets processes that have ended.
func (a *agent) sweep(ctx context.Context) {
	for {
		if err := a.keeper.Sweep(); err != nil {
			a.log.WithError(err).Warn("ended processes cannot be forgotten")
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
	was := a.engineError.Swap(&err)
	switch {
	case err != nil:
		a.metrics.Connected.Set(0)
	case *was != nil:
		a.metrics.Connected.Set(1)
		if a.connected.Swap(true) {
			a.metrics.Reconnects.Inc()
		}
	}
}

// serve answers Prometheus and the kubelet until ctx ends.
func (a *agent) serve(ctx context.Context) error {
	reported := status.Check{Name: "reports", Ask: func(context.Context) error { return *a.reportsError.Load() }}
	stuck := status.Check{Name: "repairs", Ask: func(context.Context) error { return a.keeper.Stuck() }}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.metrics.Registry, promhttp.HandlerOpts{}))
	mux.Handle("GET /healthz", status.Handler(reported, stuck))
	mux.Handle("GET /readyz", status.Handler(
		reported, stuck,
		status.Check{Name: "engine", Ask: func(context.Context) error { return *a.engineError.Load() }},
		status.Check{Name: "host", Ask: func(ctx context.Context) error { _, err := a.program.Version(ctx); return err }},
		status.Check{Name: "hook", Ask: a.checkInstalled},
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
		_ = server.Shutdown(ctx) // open requests are cut off
		return nil
	}
}
