package kube

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/autofs-restore-hook/autofs-restore-hook/agent/engine"
)

var legacy = engine.Pod{Namespace: "default", Name: "legacy-0", UID: "u-1", Container: "main"}

// cluster is a client of a TLS server.
func cluster(t *testing.T, handle http.HandlerFunc) (client *Client, dir string) {
	t.Helper()
	server := httptest.NewTLSServer(handle)
	t.Cleanup(server.Close)
	dir = t.TempDir()
	put(t, dir, "ca.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	put(t, dir, "token", "first\n")
	host, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
	if client, err = InCluster(func(name string) string { return env[name] }, dir, "node-1", "v1"); err != nil {
		t.Fatal(err)
	}
	return client, dir
}

func put(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWarning(t *testing.T) {
	var token, path string
	var got event
	c, dir := cluster(t, func(w http.ResponseWriter, r *http.Request) {
		token, path = r.Header.Get("Authorization"), r.URL.Path
		body, _ := io.ReadAll(r.Body)
		if err := json.Unmarshal(body, &got); err != nil {
			t.Error(err)
		}
		w.WriteHeader(http.StatusCreated)
	})
	at := time.Date(2026, 11, 21, 9, 0, 0, 123, time.UTC)
	if err := c.Warning(t.Context(), legacy, "Why", "it hangs", at); err != nil {
		t.Fatal(err)
	}
	if token != "Bearer first" || path != "/api/v1/namespaces/default/events" {
		t.Errorf("%q to %q", token, path)
	}
	if got.InvolvedObject.UID != "u-1" || got.InvolvedObject.FieldPath != "spec.containers{main}" || got.Message != "it hangs" ||
		got.FirstTimestamp != "2026-11-21T09:00:00Z" || !strings.HasPrefix(got.Metadata.Name, "legacy-0.") {
		t.Errorf("%+v", got)
	}
	put(t, dir, "token", "second\n") // the kubelet replaces it every hour
	if err := c.Warning(t.Context(), legacy, "Why", "it hangs", at); err != nil || token != "Bearer second" {
		t.Errorf("%q, %v", token, err)
	}
}

func TestWarningRefused(t *testing.T) {
	status := http.StatusForbidden
	c, dir := cluster(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte("events is forbidden\n" + strings.Repeat("x", 100000)))
	})
	err := c.Warning(t.Context(), legacy, "Why", "it hangs", time.Now())
	if err == nil || !strings.Contains(err.Error(), "403") || strings.Contains(err.Error(), "\n") || len(err.Error()) > 3000 {
		t.Errorf("%v", err)
	}
	status = http.StatusConflict
	if err := c.Warning(t.Context(), legacy, "Why", "it hangs", time.Now()); err != nil {
		t.Errorf("an Event that is there already: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "token")); err != nil {
		t.Fatal(err)
	}
	if err := c.Warning(t.Context(), legacy, "Why", "it hangs", time.Now()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a token: %v", err)
	}
}

// TestStranger is a server with another certificate.
func TestStranger(t *testing.T) {
	c, _ := cluster(t, func(http.ResponseWriter, *http.Request) {})
	other, _ := cluster(t, func(http.ResponseWriter, *http.Request) { t.Error("the token was sent to a stranger") })
	// Both servers of httptest have the same certificate, so ours must not know it.
	c.base, c.http.Transport.(*http.Transport).TLSClientConfig.RootCAs = other.base, nil
	if err := c.Warning(t.Context(), legacy, "Why", "it hangs", time.Now()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("%v", err)
	}
}

func TestInCluster(t *testing.T) {
	if _, err := InCluster(func(string) string { return "" }, t.TempDir(), "", ""); !errors.Is(err, ErrNoCluster) {
		t.Errorf("%v", err)
	}
	dir := t.TempDir()
	here := func(string) string { return "1" }
	if _, err := InCluster(here, dir, "", ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a certificate: %v", err)
	}
	put(t, dir, "ca.crt", "no certificate")
	if _, err := InCluster(here, dir, "", ""); err == nil {
		t.Error("a certificate that is none")
	}
}

func TestShorten(t *testing.T) {
	for _, text := range []string{"", "short", strings.Repeat("ä", 2000), "x" + strings.Repeat("ä", 2000), strings.Repeat("\xff", 3000)} {
		got := shorten(text, maxMessage)
		if len(got) > maxMessage || !utf8.ValidString(got) || len(text) <= maxMessage && got != text {
			t.Errorf("shorten(%d bytes) gives %d bytes, valid: %v", len(text), len(got), utf8.ValidString(got))
		}
	}
	e := (&Client{}).warning(engine.Pod{Name: strings.Repeat("a", 253)}, "Why", "", time.Now())
	if len(e.Metadata.Name) != 253 {
		t.Errorf("a name of %d bytes", len(e.Metadata.Name))
	}
}

// TestQueue has an API server that answers at the second attempt.
func TestQueue(t *testing.T) {
	var calls atomic.Int32
	c, _ := cluster(t, func(w http.ResponseWriter, _ *http.Request) {
		if calls.Add(1) == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusCreated)
	})
	type end struct {
		err  error
		lost bool
	}
	ended := make(chan end, 10)
	q := NewQueue(c, 1, func(err error, lost bool) { ended <- end{err, lost} })
	if !q.Warning(legacy, "Why", "it hangs") || q.Warning(legacy, "Why", "it hangs") {
		t.Error("want a queue of one")
	}
	ctx, cancel := context.WithCancel(t.Context())
	go q.Run(ctx)
	if e := <-ended; e.err == nil || e.lost {
		t.Errorf("first attempt: %+v", e)
	}
	if e := <-ended; e.err != nil {
		t.Errorf("second attempt: %+v", e)
	}
	cancel()
	q.try(ctx, warning{pod: legacy})
	if e := <-ended; !e.lost {
		t.Errorf("an Event at the end of the agent: %+v, want it lost at once", e)
	}
}
