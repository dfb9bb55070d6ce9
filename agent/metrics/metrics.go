// Package metrics counts what the agent sees, for Prometheus.
//
// Label values come from closed lists: nothing that a container or a checkpoint
// chose becomes a label.
package metrics

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
)

const namespace = "autofs_restore"

// By says who repaired.
const (
	ByActionScript = "action-script" // CRIU called the program
	ByHook         = "oci-hook"      // an OCI hook left a watcher, or poststart ran
	ByAgent        = "agent"
	ByPerson       = "command"
	byOther        = "other"
)

// Metrics are the agent's.
type Metrics struct {
	Registry *prometheus.Registry

	restores    *prometheus.CounterVec
	mounts      *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	reaction    prometheus.Histogram
	released    prometheus.Counter
	waiting     prometheus.Counter
	lastSuccess prometheus.Gauge

	// Attempts counts runs of the light binary that gave no report.
	FailedRuns prometheus.Counter
	// Missed counts restores that were found by looking at running containers.
	Missed prometheus.Counter
	// Gone counts restored containers that had ended before they were looked at.
	Gone prometheus.Counter
	// Connected is 1 while the engine is reachable.
	Connected prometheus.Gauge
	// Reconnects counts connections to the engine after the first.
	Reconnects prometheus.Counter
	// Running and Queued are repairs by the agent.
	Running, Queued prometheus.Gauge
	// EventsPosted and EventsLost are Kubernetes Events.
	EventsPosted, EventsLost prometheus.Counter
}

// New makes the metrics of an agent of the given version and engine.
func New(version, engine string) *Metrics {
	m := &Metrics{Registry: prometheus.NewRegistry()}
	add := func(c prometheus.Collector) { m.Registry.MustRegister(c) }
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help})
		add(c)
		return c
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help})
		add(g)
		return g
	}
	m.restores = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Name: "restores_total",
		Help: "Restores seen, by who repaired and the outcome of the whole.",
	}, []string{"by", "outcome"})
	m.mounts = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Name: "mounts_total",
		Help: "Autofs mounts of restored containers, by kind of master and outcome (the cure).",
	}, []string{"master", "outcome"})
	m.duration = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Name: "repair_duration_seconds",
		Help:    "How long repairs took, as their reports say.",
		Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2, 4, 8},
	}, []string{"by"})
	m.reaction = prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: namespace, Name: "reaction_seconds",
		Help:    "From the engine's start event of a restored container to the end of its repair by the agent.",
		Buckets: []float64{.1, .2, .3, .4, .5, .75, 1, 2, 5, 10, 30, 60},
	})
	add(m.restores)
	add(m.mounts)
	add(m.duration)
	add(m.reaction)
	m.released = counter("waiters_released_total", "Processes that were stuck on automounts and were let go.")
	m.waiting = counter("waiters_left_total", "Processes that were still stuck when a repair ended.")
	m.lastSuccess = gauge("last_success_timestamp_seconds", "When the last restore was seen after which every automount works.")
	m.FailedRuns = counter("failed_runs_total", "Runs of the light binary that gave no report: crashed, killed or not started.")
	m.Missed = counter("missed_restores_total", "Restores that no event told of, found by looking at running containers.")
	m.Gone = counter("ended_restores_total", "Restored containers that had ended before they were looked at.")
	m.Connected = gauge("engine_connected", "1 while the engine is reachable.")
	m.Reconnects = counter("engine_reconnects_total", "Connections to the engine after the first one.")
	m.Running = gauge("repairs_running", "Repairs by the agent that run now.")
	m.Queued = gauge("repairs_queued", "Restores that wait for a report, or for a free worker.")
	m.EventsPosted = counter("events_posted_total", "Kubernetes Events about unrepaired mounts.")
	m.EventsLost = counter("events_lost_total", "Kubernetes Events that could not be posted.")
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: namespace, Name: "agent_info", Help: "1, with the agent's version and engine.",
		ConstLabels: prometheus.Labels{"version": version, "engine": engine},
	})
	info.Set(1)
	add(info)
	add(collectors.NewGoCollector())
	add(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Restore counts one restore by its report.
func (m *Metrics) Restore(r *hook.Report, by string) {
	m.restores.WithLabelValues(by, outcome(r.Outcome)).Inc()
	m.duration.WithLabelValues(by).Observe(r.DurationMS / 1000)
	for i := range r.Mounts {
		m.mounts.WithLabelValues(kind(r.Mounts[i].Master.Kind), cure(r.Mounts[i].Outcome)).Inc()
		m.released.Add(float64(max(0, r.Mounts[i].WaitersReleased)))
	}
	m.waiting.Add(float64(len(r.Waiting)))
	if r.Outcome == hook.Repaired || r.Outcome == hook.NothingToDo {
		m.lastSuccess.SetToCurrentTime()
	}
}

// Reaction counts how long the agent's repair took since the start event.
func (m *Metrics) Reaction(d time.Duration) { m.reaction.Observe(d.Seconds()) }

// By reads who repaired from a report's trigger.
func By(trigger string) string {
	switch {
	case strings.HasPrefix(trigger, "criu:"):
		return ByActionScript
	case strings.HasPrefix(trigger, "oci:"):
		return ByHook
	case strings.HasPrefix(trigger, "command:"):
		return ByPerson
	}
	return byOther
}

func outcome(o hook.Outcome) string {
	switch o {
	case hook.Repaired, hook.NothingToDo, hook.Partial, hook.Failed:
		return string(o)
	default:
		return byOther
	}
}

func cure(c hook.Cure) string {
	switch c {
	case hook.Healthy, hook.Preserved, hook.Reexecuted, hook.Restarted, hook.Reloaded, hook.Unrepaired:
		return string(c)
	default:
		return byOther
	}
}

func kind(k string) string {
	switch master.Kind(k) {
	case master.Systemd, master.Automount, master.None:
		return k
	default:
		return byOther
	}
}
