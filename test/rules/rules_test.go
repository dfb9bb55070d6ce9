// Package rules evaluates the alert rules of manifests/kubernetes with Prometheus'
// own engine on the agent's own metrics. It is a module of its own: Prometheus
// requires other versions of many modules than the other tests.
//
// Run it with `make test-unit`.
package rules

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	commonmodel "github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/autofs-restore-hook/autofs-restore-hook/agent/status"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
)

// scrapes are the agent's metrics at several times, for PromQL.
type scrapes map[string]*series

type series struct {
	labels  labels.Labels
	samples []chunks.Sample
}

// sample is a value at a time in ms. It is no histogram.
type sample struct {
	chunks.Sample
	at    int64
	value float64
}

func (s sample) T() int64                 { return s.at }
func (s sample) ST() int64                { return 0 }
func (s sample) F() float64               { return s.value }
func (s sample) Type() chunkenc.ValueType { return chunkenc.ValFloat }
func (s sample) Copy() chunks.Sample      { return s }

// scrape adds the metrics of now.
func (s scrapes) scrape(t *testing.T, from prometheus.Gatherer, at time.Time) {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetType() == dto.MetricType_HISTOGRAM {
			continue
		}
		for _, m := range f.GetMetric() {
			b := labels.NewScratchBuilder(8)
			b.Add(commonmodel.MetricNameLabel, f.GetName())
			b.Add("node", "node-1")
			for _, l := range m.GetLabel() {
				b.Add(l.GetName(), l.GetValue())
			}
			b.Sort()
			l := b.Labels()
			if s[l.String()] == nil {
				s[l.String()] = &series{labels: l}
			}
			s[l.String()].samples = append(s[l.String()].samples, sample{at: at.UnixMilli(), value: value(m)})
		}
	}
}

// set is a storage.SeriesSet.
type set struct {
	series []storage.Series
	next   int
}

func (s *set) Next() bool                        { s.next++; return s.next <= len(s.series) }
func (s *set) At() storage.Series                { return s.series[s.next-1] }
func (s *set) Err() error                        { return nil }
func (s *set) Warnings() annotations.Annotations { return nil }

// Querier makes scrapes a storage.Queryable.
func (s scrapes) Querier(_, _ int64) (storage.Querier, error) {
	return &storage.MockQuerier{SelectMockFunction: func(_ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
		var found []storage.Series
		for _, key := range slices.Sorted(maps.Keys(s)) {
			one := s[key]
			if slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(one.labels.Get(m.Name)) }) {
				continue
			}
			found = append(found, storage.NewListSeries(one.labels, one.samples))
		}
		return &set{series: found}
	}}, nil
}

// prometheusRule is the Prometheus operator's type of monitoring.coreos.com/v1, as
// far as the manifests use it.
type prometheusRule struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Groups []struct {
			Name  string `json:"name"`
			Rules []rule `json:"rules"`
		} `json:"groups"`
	} `json:"spec"`
}

type rule struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

// alerts are the rules of components/monitoring.
func alerts(t *testing.T) []rule {
	t.Helper()
	text, err := os.ReadFile("../../manifests/kubernetes/components/monitoring/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var r prometheusRule
	if err := yaml.UnmarshalStrict(text, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Spec.Groups) != 1 {
		t.Fatalf("%d groups of rules, want 1", len(r.Spec.Groups))
	}
	return r.Spec.Groups[0].Rules
}

// TestRules: each alert fires at the first failure of its kind, and only then. The
// metrics are the agent's own.
func TestRules(t *testing.T) {
	const incomplete, blocked, runs, engine, bypassed = "AutofsRestoreIncomplete", "AutofsRestoreProcessesBlocked",
		"AutofsRestoreRunsFail", "AutofsRestoreEngineUnreachable", "AutofsRestoreHookBypassed"
	made := func(outcome report.Outcome, cure plan.Cure) *report.Report {
		return &report.Report{Outcome: outcome, Mounts: []report.Mount{{Outcome: cure, Master: report.Master{Kind: "systemd"}}}}
	}
	rules := alerts(t)
	all := map[string]bool{}
	for name, test := range map[string]struct {
		happens func(m *status.Metrics)
		want    []string
	}{
		"nothing":         {func(*status.Metrics) {}, nil},
		"a repair":        {func(m *status.Metrics) { m.Restore(made(report.Repaired, plan.Preserved), status.ByActionScript) }, nil},
		"nothing to do":   {func(m *status.Metrics) { m.Restore(made(report.NothingToDo, plan.Healthy), status.ByHook) }, nil},
		"an unrepaired":   {func(m *status.Metrics) { m.Restore(made(report.Partial, plan.Unrepaired), status.ByActionScript) }, []string{incomplete}},
		"no report":       {func(m *status.Metrics) { m.Restore(&report.Report{Outcome: report.Failed}, status.ByActionScript) }, []string{incomplete}},
		"another outcome": {func(m *status.Metrics) { m.Restore(&report.Report{Outcome: "new"}, status.ByActionScript) }, []string{incomplete}},
		"a waiter": {func(m *status.Metrics) {
			m.Restore(&report.Report{Outcome: report.Repaired, Waiting: make([]container.Waiter, 1)}, status.ByActionScript)
		}, []string{blocked}},
		"a crash":        {func(m *status.Metrics) { m.FailedRuns.Inc() }, []string{runs}},
		"no engine":      {func(m *status.Metrics) { m.Connected.Set(0) }, []string{engine}},
		"no script":      {func(m *status.Metrics) { m.Restore(made(report.Repaired, plan.Reexecuted), status.ByAgent) }, []string{bypassed}},
		"an agent fails": {func(m *status.Metrics) { m.Restore(made(report.Failed, plan.Unrepaired), status.ByAgent) }, []string{bypassed, incomplete}},
	} {
		m := status.New("v1", "containerd")
		m.Connected.Set(1)
		s, now := scrapes{}, time.Unix(1700000000, 0)
		for range 4 {
			now = now.Add(30 * time.Second)
			s.scrape(t, m.Registry, now)
		}
		test.happens(m)
		for range 2 {
			now = now.Add(30 * time.Second)
			s.scrape(t, m.Registry, now)
		}
		var fired []string
		for _, r := range rules {
			all[r.Alert] = true
			if evaluate(t, s, r, now) > 0 {
				fired = append(fired, r.Alert)
			}
		}
		slices.Sort(fired)
		slices.Sort(test.want)
		if !slices.Equal(fired, test.want) {
			t.Errorf("%s: the alerts %q fire, want %q", name, fired, test.want)
		}
	}
	if len(all) != 5 {
		t.Errorf("alerts %v: want each in a case of this test", all)
	}
}

// value is a counter's or a gauge's.
func value(m *dto.Metric) float64 {
	if m.Counter != nil {
		return m.Counter.GetValue()
	}
	return m.Gauge.GetValue()
}

// evaluate counts the series for which an alert fires.
func evaluate(t *testing.T, s scrapes, r rule, now time.Time) int {
	t.Helper()
	e := promql.NewEngine(promql.EngineOpts{MaxSamples: 10000, Timeout: 10 * time.Second, Parser: parser.NewParser(parser.Options{})})
	defer e.Close()
	q, err := e.NewInstantQuery(t.Context(), s, nil, r.Expr, now)
	if err != nil {
		t.Fatalf("%s: %v", r.Alert, err)
	}
	defer q.Close()
	v, err := q.Exec(t.Context()).Vector()
	if err != nil {
		t.Fatalf("%s: %v", r.Alert, err)
	}
	for _, one := range v {
		if one.Metric.Get("node") == "" {
			t.Errorf("%s: %s does not name the node", r.Alert, one.Metric)
		}
	}
	return len(v)
}

// TestRulesRead: durations, severities and texts of the alerts.
func TestRulesRead(t *testing.T) {
	for _, r := range alerts(t) {
		if r.For != "" {
			if _, err := commonmodel.ParseDuration(r.For); err != nil {
				t.Errorf("%s: for: %v", r.Alert, err)
			}
		}
		if r.Labels["severity"] == "" || r.Annotations["summary"] == "" || !strings.Contains(r.Annotations["description"], "$labels.node") {
			t.Errorf("%s: %v, %v", r.Alert, r.Labels, r.Annotations)
		}
	}
}
