package engine

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"testing"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/typeurl/v2"
	"github.com/sirupsen/logrus"
)

// The watcher with a real containerd is tested in test/agent.

func discard() logrus.FieldLogger {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return l
}

type recorder struct{ told []string }

func (r *recorder) Restored(n Notice) { r.note("restored", n) }
func (r *recorder) Running(n Notice)  { r.note("running", n) }

func (r *recorder) note(what string, n Notice) {
	r.told = append(r.told, fmt.Sprintf("%s %s/%s %d", what, n.Namespace, n.Container, n.PID))
}

// TestTake hears events in an order that containerd has.
func TestTake(t *testing.T) {
	create := func(id, images string) any { return &eventsapi.TaskCreate{ContainerID: id, Checkpoint: images} }
	start := func(id string, pid uint32) any { return &eventsapi.TaskStart{ContainerID: id, Pid: pid} }
	exit := func(id, process string) any { return &eventsapi.TaskExit{ContainerID: id, ID: process} }
	type heard struct {
		namespace string
		body      any
	}
	for name, test := range map[string]struct {
		heard []heard
		want  []string
	}{
		"a start":        {[]heard{{"k", create("c", "")}, {"k", start("c", 7)}}, nil},
		"a restore":      {[]heard{{"k", create("c", "/i")}, {"k", start("c", 7)}}, []string{"restored k/c 7"}},
		"only the start": {[]heard{{"k", start("c", 7)}}, []string{"running k/c 7"}},
		"the same name":  {[]heard{{"k", create("c", "/i")}, {"m", create("c", "")}, {"m", start("c", 8)}, {"k", start("c", 7)}}, []string{"restored k/c 7"}},
		"a restore that fails": {
			[]heard{{"k", create("c", "/i")}, {"k", &eventsapi.TaskDelete{ContainerID: "c"}}, {"k", create("c", "")}, {"k", start("c", 7)}}, nil,
		},
		"an end before": {[]heard{{"k", create("c", "/i")}, {"k", exit("c", "c")}, {"k", start("c", 7)}}, []string{"running k/c 7"}},
		"an exec ends":  {[]heard{{"k", create("c", "/i")}, {"k", exit("c", "exec")}, {"k", start("c", 7)}}, []string{"restored k/c 7"}},
		"again": {
			[]heard{{"k", create("c", "/i")}, {"k", start("c", 7)}, {"k", exit("c", "c")}, {"k", create("c", "/j")}, {"k", start("c", 8)}},
			[]string{"restored k/c 7", "restored k/c 8"},
		},
		"something else": {[]heard{{"k", &eventsapi.NamespaceUpdate{Name: "x"}}}, nil},
	} {
		r := &recorder{}
		s := &session{Containerd: &Containerd{Log: discard()}, handler: r, created: map[task]bool{}}
		for _, h := range test.heard {
			body, err := typeurl.MarshalAny(h.body)
			if err != nil {
				t.Fatal(err)
			}
			s.take(&events.Envelope{Namespace: h.namespace, Topic: "/tasks/x", Timestamp: time.Now(), Event: body})
		}
		if !slices.Equal(r.told, test.want) {
			t.Errorf("%s: %q, want %q", name, r.told, test.want)
		}
		if len(s.created) > 0 {
			t.Errorf("%s: %v is kept", name, s.created)
		}
	}
	s := &session{Containerd: &Containerd{Log: discard()}}
	s.take(&events.Envelope{Event: unknown{}}) // does not panic
}

type unknown struct{}

func (unknown) GetTypeUrl() string { return "unknown/type" }
func (unknown) GetValue() []byte   { return []byte("\xff") }

// TestNotThere: a containerd that is not there is said to be, again and again.
func TestNotThere(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	w := Containerd{
		Socket: filepath.Join(t.TempDir(), "containerd.sock"), Log: discard(),
		patience: 100 * time.Millisecond,
		State: func(err error) {
			if calls++; err == nil {
				t.Error("reachable")
			}
			if calls == 2 {
				cancel()
			}
		},
	}
	w.Run(ctx, &recorder{})
	if calls != 2 {
		t.Errorf("told %d times", calls)
	}
}
