// Package metrics reads the agent's metrics in tests.
package metrics

import (
	"net/http"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Samples are the agent's metrics, by name without its prefix and labels:
// "name{a=b,c=d}". The sample of a histogram is its count; the sum is "name_sum".
type Samples map[string]float64

var client = http.Client{Timeout: 10 * time.Second}

// Get asks the agent that listens at the address.
func Get(t *testing.T, address string) Samples {
	t.Helper()
	r, err := client.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		t.Fatalf("/metrics: %s", r.Status)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	s := Samples{}
	for name, f := range families {
		name, ours := strings.CutPrefix(name, "autofs_restore_")
		if !ours && name != "process_resident_memory_bytes" && name != "go_goroutines" && name != "process_open_fds" {
			continue
		}
		for _, m := range f.GetMetric() {
			s.add(name, m)
		}
	}
	return s
}

func (s Samples) add(name string, m *dto.Metric) {
	var pairs []string
	for _, l := range m.GetLabel() {
		pairs = append(pairs, l.GetName()+"="+l.GetValue())
	}
	labels := ""
	if len(pairs) > 0 {
		labels = "{" + strings.Join(pairs, ",") + "}"
	}
	switch {
	case m.Counter != nil:
		s[name+labels] = m.Counter.GetValue()
	case m.Gauge != nil:
		s[name+labels] = m.Gauge.GetValue()
	default:
		s[name+labels] = float64(m.Histogram.GetSampleCount())
		s[name+"_sum"+labels] = m.Histogram.GetSampleSum()
	}
}

// Sum adds all samples of a name whose labels hold the given text.
func (s Samples) Sum(name, label string) float64 {
	total := 0.0
	for key, v := range s {
		if n, labels, _ := strings.Cut(key, "{"); n == name && strings.Contains(labels, label) {
			total += v
		}
	}
	return total
}

// Expect compares samples.
func (s Samples) Expect(t *testing.T, want map[string]float64) {
	t.Helper()
	for name, value := range want {
		if s[name] != value {
			t.Errorf("%s is %v, want %v", name, s[name], value)
		}
	}
}

// CheckGrowth fails the test if the agent has more memory, files or goroutines than early
// in a test of many restores.
func (s Samples) CheckGrowth(t *testing.T, early Samples) {
	t.Helper()
	const megabyte = 1 << 20
	t.Logf("memory %.1f MB early, %.1f MB at the end; goroutines %v, %v; files %v, %v",
		early["process_resident_memory_bytes"]/megabyte, s["process_resident_memory_bytes"]/megabyte,
		early["go_goroutines"], s["go_goroutines"], early["process_open_fds"], s["process_open_fds"])
	if grown := s["process_resident_memory_bytes"] - early["process_resident_memory_bytes"]; grown > 8*megabyte {
		t.Errorf("the agent has grown by %.1f MB", grown/megabyte)
	}
	if s["process_open_fds"] > early["process_open_fds"]+3 || s["go_goroutines"] > early["go_goroutines"]+5 {
		t.Errorf("files or goroutines are left: %v, early %v", s, early)
	}
}
