package agent

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

var web = http.Client{Timeout: 10 * time.Second}

// get asks the agent; the status is 0 if it does not answer.
func (p *pod) get(path string) (status int, body string) {
	r, err := web.Get("http://" + p.listen + path)
	if err != nil {
		return 0, err.Error()
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return 0, err.Error()
	}
	return r.StatusCode, string(text)
}

// samples are the agent's metrics, by name and labels: "name{a=b,c=d}".
type samples map[string]float64

func (p *pod) metrics(t *testing.T) samples {
	t.Helper()
	status, body := p.get("/metrics")
	if status != http.StatusOK {
		t.Fatalf("/metrics: %d: %s", status, body)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	out := samples{}
	for name, f := range families {
		name, ours := strings.CutPrefix(name, "autofs_restore_")
		if !ours && name != "process_resident_memory_bytes" && name != "go_goroutines" && name != "process_open_fds" {
			continue
		}
		for _, m := range f.GetMetric() {
			key := name
			var pairs []string
			for _, l := range m.GetLabel() {
				pairs = append(pairs, l.GetName()+"="+l.GetValue())
			}
			if len(pairs) > 0 {
				key += "{" + strings.Join(pairs, ",") + "}"
			}
			out[key] = value(m)
		}
	}
	return out
}

// value is a counter's or gauge's, or how often a histogram was told of
// something.
func value(m *dto.Metric) float64 {
	switch {
	case m.Counter != nil:
		return m.Counter.GetValue()
	case m.Gauge != nil:
		return m.Gauge.GetValue()
	default:
		return float64(m.Histogram.GetSampleCount())
	}
}

// sum adds all samples of a name whose labels hold the given text.
func (s samples) sum(name, label string) float64 {
	total := 0.0
	for key, v := range s {
		if n, labels, _ := strings.Cut(key, "{"); n == name && strings.Contains(labels, label) {
			total += v
		}
	}
	return total
}

// ready waits until the agent says that it is ready.
func (p *pod) ready(t *testing.T) {
	t.Helper()
	var last string
	deadline := time.Now().Add(15 * time.Second)
	for {
		status, body := p.get("/readyz")
		if status == http.StatusOK {
			return
		}
		if last = body; time.Now().After(deadline) {
			t.Fatalf("the agent is not ready: %s", last)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
