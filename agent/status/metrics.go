// Package status is what the agent says about itself over HTTP: metrics for
// Prometheus, and answers to the kubelet's probes.
//
// Label values come from closed lists: nothing that a container or a checkpoint
// chose becomes a label.
package status

import (
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
)

const namespace = "autofs_restore"

// What repaired a container.
const (
	ByActionScript = "action-script" // CRIU called the program
	ByHook         = "oci-hook"      // an OCI hook left a watcher, or poststart ran
	ByAgent        = "agent"
	ByPerson       = "command"
	other          = "other"
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

	// FailedRuns counts runs of autofs-restore-hook that gave no report.
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
		Help: "Restores seen, by what repaired them and the outcome of the whole.",
	}, []string{"by", "outcome"})
	m.mounts = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Name: "mounts_total",
		Help: "Autofs mounts of restored containers, by kind of master and outcome (the cure).",
	}, []string{"master", "outcome"})
	m.duration = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Name: "repair_duration_seconds",
		Help:    "How long repairs took, by their reports.",
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
	m.released = counter("waiters_released_total", "Processes that were blocked on an automount and that a repair released.")
	m.waiting = counter("waiters_left_total", "Processes that were still blocked on an automount when a repair ended.")
	m.lastSuccess = gauge("last_success_timestamp_seconds", "When the last restore was seen after which every automount works; 0 if there was none since the agent started.")
	m.FailedRuns = counter("failed_runs_total", "Runs of autofs-restore-hook that gave no report: crashed, killed or not started.")
	m.Missed = counter("missed_restores_total", "Restores without an event, found among the running containers.")
	m.Gone = counter("ended_restores_total", "Restored containers that ended before they could be repaired.")
	m.Connected = gauge("engine_connected", "1 while the engine is reachable, else 0.")
	m.Reconnects = counter("engine_reconnects_total", "Connections to the engine after the first one.")
	m.Running = gauge("repairs_running", "Repairs by the agent that run now.")
	m.Queued = gauge("repairs_queued", "Restores that wait for a report or for a free worker.")
	m.EventsPosted = counter("events_posted_total", "Kubernetes Events about unrepaired mounts.")
	m.EventsLost = counter("events_lost_total", "Kubernetes Events that could not be posted.")
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: namespace, Name: "agent_info", Help: "1, with the agent's version and engine.",
		ConstLabels: prometheus.Labels{"version": version, "engine": engine},
	})
	info.Set(1)
	add(info)
	m.initialise()
	add(collectors.NewGoCollector())
	add(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// The closed lists of label values.
var (
	bys      = []string{ByActionScript, ByHook, ByAgent, ByPerson, other}
	outcomes = []string{string(report.Repaired), string(report.NothingToDo), string(report.Partial), string(report.Failed), other}
	kinds    = []string{string(master.Systemd), string(master.Automount), string(master.None), other}
	cures    = []string{
		string(plan.Healthy), string(plan.Preserved), string(plan.Reexecuted), string(plan.Restarted),
		string(plan.Reloaded), string(plan.Unrepaired), other,
	}
)

// initialise has every series start at 0: increase() does not see the first count
// of a series that appears with it.
func (m *Metrics) initialise() {
	for _, by := range bys {
		m.duration.WithLabelValues(by)
		for _, outcome := range outcomes {
			m.restores.WithLabelValues(by, outcome)
		}
	}
	for _, kind := range kinds {
		for _, cure := range cures {
			m.mounts.WithLabelValues(kind, cure)
		}
	}
}

// listed returns a label value, or "other" if it is not in the list.
func listed(list []string, value string) string {
	if slices.Contains(list, value) {
		return value
	}
	return other
}

// Restore counts one restore by its report.
func (m *Metrics) Restore(r *report.Report, by string) {
	m.restores.WithLabelValues(by, listed(outcomes, string(r.Outcome))).Inc()
	m.duration.WithLabelValues(by).Observe(r.DurationMS / 1000)
	for i := range r.Mounts {
		m.mounts.WithLabelValues(listed(kinds, r.Mounts[i].Master.Kind), listed(cures, string(r.Mounts[i].Outcome))).Inc()
		m.released.Add(float64(max(0, r.Mounts[i].WaitersReleased)))
	}
	m.waiting.Add(float64(len(r.Waiting)))
	if r.Outcome == report.Repaired || r.Outcome == report.NothingToDo {
		m.lastSuccess.SetToCurrentTime()
	}
}

// Reaction counts how long the agent's repair took since the start event.
func (m *Metrics) Reaction(d time.Duration) { m.reaction.Observe(d.Seconds()) }

// By returns what repaired a container, by its report's trigger.
func By(trigger string) string {
	switch {
	case strings.HasPrefix(trigger, "criu:"):
		return ByActionScript
	case strings.HasPrefix(trigger, "oci:"):
		return ByHook
	case strings.HasPrefix(trigger, "command:"):
		return ByPerson
	}
	return other
}
