package restores

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/sirupsen/logrus"

	"github.com/autofs-restore-hook/autofs-restore-hook/agent/engine"
	"github.com/autofs-restore-hook/autofs-restore-hook/agent/status"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
)

// faulty stands in for autofs-restore-hook and crashes, or is slow. What the real
// one does is tested in test/agent.
type faulty struct {
	crashes int32 // how often it crashes first
	slow    time.Duration
	outcome report.Outcome

	mu            sync.Mutex
	calls         map[int]int // by process
	running, most atomic.Int32
}

func (f *faulty) Repair(_ context.Context, pid int) (*report.Report, error) {
	n := f.running.Add(1)
	defer f.running.Add(-1)
	for most := f.most.Load(); n > most && !f.most.CompareAndSwap(most, n); most = f.most.Load() {
	}
	f.mu.Lock()
	if f.calls == nil {
		f.calls = map[int]int{}
	}
	f.calls[pid]++
	f.mu.Unlock()
	time.Sleep(f.slow)
	if atomic.AddInt32(&f.crashes, -1) >= 0 {
		return nil, errors.New("signal: segmentation fault")
	}
	return &report.Report{PID: pid, Outcome: f.outcome}, nil
}

func (f *faulty) Inspect(context.Context, int) (*report.Report, error) {
	return nil, errors.New("not asked here")
}

type scene struct {
	*Keeper
	program *faulty
	warned  chan string
	cancel  context.CancelFunc
}

func newScene(t *testing.T, program *faulty, workers int) *scene {
	t.Helper()
	dir := t.TempDir()
	s := &scene{program: program, warned: make(chan string, 1000)}
	ctx, cancel := context.WithCancel(t.Context())
	s.cancel = cancel
	log := logrus.New()
	log.SetOutput(t.Output())
	keeper, err := New(ctx, Options{
		Directory: dir, Metrics: status.New("v", "containerd"),
		Repairer: program, Log: log, Workers: workers, Grace: 50 * time.Millisecond,
		PodOf: func(context.Context, string, string) (engine.Pod, error) { return engine.Pod{Name: "p"}, nil },
		Warn: func(_ engine.Pod, _, message string) bool {
			s.warned <- message
			return true
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Keeper = keeper
	if err := os.Mkdir(string(s.reports), 0o700); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *scene) counted(by, outcome string) float64 {
	families, err := s.Metrics.Registry.Gather()
	if err != nil {
		return -1
	}
	total := 0.0
	for _, f := range families {
		if f.GetName() != "autofs_restore_restores_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == by && m.GetLabel()[1].GetValue() == outcome {
				total += m.GetCounter().GetValue()
			}
		}
	}
	return total
}

// sleepers are notices of processes that live until the test ends.
func sleepers(t *testing.T, count int) []engine.Notice {
	t.Helper()
	var list []engine.Notice
	for i := range count {
		cmd := exec.Command("sleep", "300")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		list = append(list, engine.Notice{Container: "c" + strconv.Itoa(i), PID: cmd.Process.Pid, Started: time.Now()})
	}
	return list
}

// TestManyAtOnce has 200 restores at once, each told of three times.
func TestManyAtOnce(t *testing.T) {
	s := newScene(t, &faulty{slow: 5 * time.Millisecond, outcome: report.Repaired}, 4)
	for _, n := range sleepers(t, 200) {
		for range 3 {
			go s.Restored(n)
		}
		s.Restored(n)
	}
	time.Sleep(10 * time.Millisecond)
	s.Wait()
	if got := s.counted(status.ByAgent, "repaired"); got != 200 {
		t.Errorf("%v restores are counted, want 200", got)
	}
	if len(s.program.calls) != 200 {
		t.Errorf("%d containers were repaired, want 200", len(s.program.calls))
	}
	for pid, n := range s.program.calls {
		if n != 1 {
			t.Errorf("process %d was repaired %d times", pid, n)
		}
	}
	if most := s.program.most.Load(); most > 4 || most < 2 {
		t.Errorf("%d repairs at a time, want at most 4", most)
	}
	if q, r := testutil.ToFloat64(s.Metrics.Queued), testutil.ToFloat64(s.Metrics.Running); q != 0 || r != 0 {
		t.Errorf("%v are queued and %v run at the end", q, r)
	}
}

func TestCrashes(t *testing.T) {
	s := newScene(t, &faulty{crashes: 2, outcome: report.Repaired}, 1)
	n := sleepers(t, 1)[0]
	s.Restored(n)
	s.Wait()
	if got := s.counted(status.ByAgent, "repaired"); got != 1 || testutil.ToFloat64(s.Metrics.FailedRuns) != 2 {
		t.Errorf("%v restores, %v failed runs", got, testutil.ToFloat64(s.Metrics.FailedRuns))
	}

	s = newScene(t, &faulty{crashes: 100}, 1)
	s.Restored(n)
	s.Wait()
	if got := s.counted(status.ByAgent, "failed"); got != 1 || s.program.calls[n.PID] != attempts {
		t.Errorf("%v restores, %d attempts, want %d", got, s.program.calls[n.PID], attempts)
	}
	select {
	case message := <-s.warned:
		t.Log(message)
	default:
		t.Error("no warning")
	}
	s.Restored(n) // and not again
	s.Wait()
	if s.program.calls[n.PID] != attempts {
		t.Error("it was started again")
	}
}

// TestReports has hooks repair.
func TestReports(t *testing.T) {
	s := newScene(t, &faulty{outcome: report.Repaired}, 1)
	s.Grace = time.Second // on a busy machine too a report comes within it
	list := sleepers(t, 3)
	report := func(n engine.Notice, pid int, trigger, outcome string) {
		text := fmt.Sprintf(`{"container":%q,"pid":%d,"trigger":%q,"outcome":%q}`, n.Container, pid, trigger, outcome)
		if err := os.WriteFile(filepath.Join(string(s.reports), n.Container+".json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	report(list[0], list[0].PID, "criu:post-resume", "repaired")
	s.reported(list[0].Container)
	s.Restored(list[0])

	s.Restored(list[1]) // its report comes within the grace
	time.Sleep(10 * time.Millisecond)
	report(list[1], list[1].PID, "oci:createRuntime", "repaired")
	s.reported(list[1].Container)

	report(list[2], 1, "criu:post-resume", "repaired") // of an earlier process
	s.Restored(list[2])
	s.Wait()
	for by, want := range map[string]float64{status.ByActionScript: 1, status.ByHook: 1, status.ByAgent: 1} {
		if got := s.counted(by, "repaired"); got != want {
			t.Errorf("%v repaired by %s, want %v", got, by, want)
		}
	}
	if len(s.program.calls) != 1 || s.program.calls[list[2].PID] != 1 {
		t.Errorf("repairs: %v, want one of the container without a report of its own", s.program.calls)
	}
}

// TestPerson: a repair that found nothing does not make a container a restored
// one.
func TestPerson(t *testing.T) {
	s := newScene(t, &faulty{outcome: report.Repaired}, 1)
	n := sleepers(t, 1)[0]
	text := fmt.Sprintf(`{"container":%q,"pid":%d,"trigger":"command:repair","outcome":"nothing-to-do"}`, n.Container, n.PID)
	if err := os.WriteFile(filepath.Join(string(s.reports), n.Container+".json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.reported(n.Container)
	s.Wait()
	if got := s.counted(status.ByPerson, "nothing-to-do"); got != 0 {
		t.Errorf("counted %v times", got)
	}
}

// TestEnd: what is under way is finished, what has not started is left for the
// next agent.
func TestEnd(t *testing.T) {
	s := newScene(t, &faulty{slow: 200 * time.Millisecond, outcome: report.Repaired}, 1)
	list := sleepers(t, 2)
	s.Restored(list[0])
	s.Restored(list[1])
	for s.program.running.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := s.Stuck(); err != nil {
		t.Error(err)
	}
	s.mu.Lock()
	for began := range s.runs {
		*began = began.Add(-2 * longest)
	}
	s.mu.Unlock()
	if s.Stuck() == nil {
		t.Error("a run of two minutes is not stuck")
	}
	s.cancel()
	s.Wait()
	if err := s.Stuck(); err != nil {
		t.Error(err)
	}
	if got := s.counted(status.ByAgent, "repaired"); got != 1 || len(s.program.calls) != 1 {
		t.Errorf("%v are counted, %v repaired, want 1", got, s.program.calls)
	}
	s.Restored(list[0])
	s.Restored(list[1])
	s.Wait()
	if len(s.program.calls) != 1 {
		t.Errorf("%v: an agent that ends begins a repair", s.program.calls)
	}
}

func TestGone(t *testing.T) {
	s := newScene(t, &faulty{}, 1)
	const none = 4194305 // pid_max is at most 2^22
	s.Restored(engine.Notice{Container: "c", PID: none, Started: time.Now()})
	s.Running(engine.Notice{Container: "c", PID: none})
	s.Wait()
	if got := testutil.ToFloat64(s.Metrics.Gone); got != 1 || len(s.program.calls) > 0 {
		t.Errorf("%v are gone, want 1; repaired: %v", got, s.program.calls)
	}
}

// TestRunningWithoutAutofs: a container without autofs mounts is not even
// inspected.
func TestRunningWithoutAutofs(t *testing.T) {
	s := newScene(t, &faulty{}, 1)
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c",
		"while read -r _ path; do case $path in *' autofs '*) umount -l \"$(echo \"$path\" | cut -d' ' -f4)\";; esac; done </proc/self/mountinfo; exec sleep 60")
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	time.Sleep(200 * time.Millisecond)
	s.Running(engine.Notice{Container: "c", PID: cmd.Process.Pid})
	s.Wait() // Inspect would fail, and the restore be released
	if _, err := s.claims.sweep(); err != nil {
		t.Fatal(err)
	}
	if n, _ := s.claims.sweep(); n != 1 {
		t.Errorf("%d are done, want 1", n)
	}
}

func TestTrouble(t *testing.T) {
	n := engine.Notice{Container: "0123456789abcdef"}
	for name, test := range map[string]struct {
		report report.Report
		want   string
	}{
		"repaired": {report.Report{Outcome: report.Repaired}, ""},
		"nothing":  {report.Report{Outcome: report.NothingToDo}, ""},
		"forged": {
			report.Report{Outcome: report.Failed, Mounts: []report.Mount{{Path: "/a\nb", Outcome: plan.Unrepaired, Reason: "it\nis"}}},
			`after the restore of container 0123456789ab: ["/a\nb"] unrepaired: "it\nis"`,
		},
		"stuck": {
			report.Report{Outcome: report.Partial, Waiting: []container.Waiter{{PID: 7, Command: "cat", Path: "/x"}}},
			`after the restore of container 0123456789ab: process 7 ("cat") waits at "/x"`,
		},
		"error":    {report.Report{Outcome: report.Failed, Error: "no\nway"}, `after the restore of container 0123456789ab: "no\nway"`},
		"no words": {report.Report{Outcome: report.Failed}, `after the restore of container 0123456789ab: outcome failed`},
	} {
		if got := trouble(n, &test.report); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}
