package agent

import (
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/metrics"
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

func (p *pod) metrics(t *testing.T) metrics.Samples {
	t.Helper()
	return metrics.Get(t, p.listen)
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
