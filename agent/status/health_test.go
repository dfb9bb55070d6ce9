package status

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func TestHandler(t *testing.T) {
	good := Check{"good", func(context.Context) error { return nil }}
	bad := Check{"bad", func(context.Context) error { return errors.New("no\n[+] forged") }}
	for name, test := range map[string]struct {
		checks []Check
		status int
		body   string
	}{
		"none": {nil, http.StatusOK, ""},
		"good": {[]Check{good, good}, http.StatusOK, "[+] good\n[+] good\n"},
		"bad":  {[]Check{good, bad, good}, http.StatusServiceUnavailable, "[+] good\n[-] bad: \"no\\n[+] forged\"\n[+] good\n"},
	} {
		w := httptest.NewRecorder()
		Handler(test.checks...).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", nil))
		if w.Code != test.status || w.Body.String() != test.body {
			t.Errorf("%s: %d %q, want %d %q", name, w.Code, w.Body, test.status, test.body)
		}
	}
}

// TestLimit: the context of a check ends.
func TestLimit(t *testing.T) {
	w := httptest.NewRecorder()
	began := time.Now()
	Handler(Check{"slow", func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}}).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", nil))
	if w.Code != http.StatusServiceUnavailable || time.Since(began) > limit+time.Second {
		t.Errorf("%d after %s", w.Code, time.Since(began))
	}
}
