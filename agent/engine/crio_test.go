package engine

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/autofs-restore-hook/autofs-restore-hook/agent/engine/criotest"
)

// receiver keeps notices of a watcher that runs in another goroutine.
type receiver struct {
	notices chan string
	mu      sync.Mutex
	latest  Notice
	err     error
}

func (r *receiver) Restored(n Notice) { r.take("restored", n) }
func (r *receiver) Running(n Notice)  { r.take("running", n) }

func (r *receiver) take(what string, n Notice) {
	r.mu.Lock()
	r.latest = n
	r.mu.Unlock()
	r.notices <- fmt.Sprintf("%s %s %d", what, n.Container, n.PID)
}

func (r *receiver) state(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

func (r *receiver) reached() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err == nil
}

// want waits for a notice, and reports how long it took.
func (r *receiver) want(t *testing.T, notice string) time.Duration {
	t.Helper()
	began := time.Now()
	select {
	case got := <-r.notices:
		if got != notice {
			t.Errorf("notice %q, want %q", got, notice)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("no notice within 10 s, want %q", notice)
	}
	return time.Since(began)
}

func (r *receiver) wantReached(t *testing.T, reached bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); r.reached() != reached; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("reachable: %v, want %v", !reached, reached)
		}
	}
}

// watch runs a watcher until the test ends.
func watch(t *testing.T, socket string) (*CRIO, *receiver) {
	t.Helper()
	r := &receiver{notices: make(chan string, 100), err: errors.New("not yet")}
	w, err := NewCRIO(socket, discard(), r.state)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.Run(ctx, r)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		_ = w.Close()
	})
	return w, r
}

// TestCRIORestores has restores during the watch, before it, and while CRI-O is
// away.
func TestCRIORestores(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "crio.sock")
	s := criotest.Start(t, socket)
	s.Import("before", nil)
	s.Run("before", 10)
	_, r := watch(t, socket)
	r.want(t, "running before 10")

	for i := range 5 {
		id, pid := fmt.Sprintf("live%d", i), 20+i
		s.Import(id, nil)
		time.Sleep(200 * time.Millisecond) // the image is mounted
		s.Conmon(t, id)
		time.Sleep(200*time.Millisecond + time.Duration(i)*11*time.Millisecond) // CRIU works
		s.Run(id, pid)
		took := r.want(t, fmt.Sprintf("restored %s %d", id, pid))
		t.Logf("seen after %s", took.Round(time.Millisecond))
		if took > 16*listSoon {
			t.Errorf("seen after %s, want it within %s", took, 16*listSoon)
		}
		if age := time.Since(r.latest.Started); age < 0 || age > 5*time.Second {
			t.Errorf("started %s ago", age)
		}
	}
	s.Create(t, "fresh", nil)
	s.Run("fresh", 30)
	r.want(t, "running fresh 30")

	s.Stop()
	r.wantReached(t, false)
	s.Import("away", nil)
	s.Run("away", 40)
	s.Exit("before")
	s.Listen(t)
	r.wantReached(t, true)
	// All are told again: the handler knows which restores it has dealt with.
	var again []string
	for range 7 {
		select {
		case notice := <-r.notices:
			again = append(again, notice)
		case <-time.After(5 * time.Second):
			t.Fatalf("only %q", again)
		}
	}
	slices.Sort(again)
	want := []string{"running away 40", "running fresh 30", "running live0 20", "running live1 21", "running live2 22", "running live3 23", "running live4 24"}
	if !slices.Equal(again, want) {
		t.Errorf("after CRI-O was away: %q, want %q", again, want)
	}
	if len(r.notices) > 0 {
		t.Errorf("more notices: %q", <-r.notices)
	}
}

// TestCRIOLists: the containers are listed once a second, and more often only
// while one is about to run.
func TestCRIOLists(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "crio.sock")
	s := criotest.Start(t, socket)
	s.Import("c", nil)
	_, r := watch(t, socket)
	r.wantReached(t, true)
	before := s.Lists()
	time.Sleep(time.Second)
	if n := s.Lists() - before; n < 3 || n > 25 {
		t.Errorf("listed %d times in a second in which a container was about to run", n)
	}
	s.Run("c", 0) // CRI-O has not recorded the process yet
	time.Sleep(100 * time.Millisecond)
	s.Run("c", 7)
	r.want(t, "restored c 7")
	before = s.Lists()
	time.Sleep(2500 * time.Millisecond)
	if n := s.Lists() - before; n < 1 || n > 4 {
		t.Errorf("listed %d times in 2.5 s in which nothing happened", n)
	}
	s.Remove("c")
	s.Create(t, "d", nil)
	s.Exit("d") // it did not start
	time.Sleep(1200 * time.Millisecond)
	before = s.Lists()
	time.Sleep(time.Second)
	if n := s.Lists() - before; n > 3 {
		t.Errorf("listed %d times in a second after a container had ended", n)
	}
}

// TestCRIOSpoiled: a container without a status hides no other one.
func TestCRIOSpoiled(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "crio.sock")
	s := criotest.Start(t, socket)
	_, r := watch(t, socket)
	r.wantReached(t, true)
	for _, id := range []string{"spoiled", "good"} {
		s.Import(id, nil)
		if id == "spoiled" {
			s.Spoil(id)
		}
		s.Run(id, 50)
		s.Conmon(t, id)
	}
	r.want(t, "restored good 50")
	r.wantReached(t, true)
}

func TestCRIOPodOf(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "crio.sock")
	s := criotest.Start(t, socket)
	w, _ := watch(t, socket)
	s.Import("c1", map[string]string{LabelNamespace: "default", LabelName: "legacy-0", LabelUID: "u-1", LabelContainer: "main"})
	s.Import("c2", nil)
	pod, err := w.PodOf(t.Context(), "", "c1")
	if want := (Pod{Namespace: "default", Name: "legacy-0", UID: "u-1", Container: "main"}); pod != want || err != nil {
		t.Errorf("%+v, %v, want %+v", pod, err, want)
	}
	if _, err := w.PodOf(t.Context(), "", "c2"); !errors.Is(err, ErrNotAPod) {
		t.Errorf("a container without labels: %v", err)
	}
	if _, err := w.PodOf(t.Context(), "", "c3"); status.Code(err) != codes.NotFound {
		t.Errorf("a container that is not there: %v", err)
	}
}
