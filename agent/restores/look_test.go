package restores

import (
	"context"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/agent/engine"
	"github.com/autofs-restore-hook/autofs-restore-hook/agent/status"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// unsure stands in for autofs-restore-hook and cannot judge a container at the
// first looks.
type unsure struct {
	unjudged int // looks
	then     plan.Cure
	calls    []string
}

func (u *unsure) report(call string) (*report.Report, error) {
	u.calls = append(u.calls, call)
	r := &report.Report{Outcome: report.Planned, Mounts: []report.Mount{
		{Path: "/a", Outcome: plan.Healthy}, {Path: "/b", Outcome: u.then, Reason: "seen"},
	}}
	if len(u.calls) <= u.unjudged {
		r.Mounts[1].Outcome, r.Mounts[1].Unjudged = plan.Unrepaired, true
	}
	switch {
	case call == "repair" && r.Mounts[1].Outcome == plan.Unrepaired:
		r.Outcome = report.Failed
	case call == "repair":
		r.Outcome = report.Repaired
	case u.then == plan.Healthy && len(u.calls) > u.unjudged:
		r.Outcome = report.NothingToDo
	}
	return r, nil
}

func (u *unsure) Inspect(context.Context, int) (*report.Report, error) {
	return u.report("inspect")
}

func (u *unsure) Repair(context.Context, int) (*report.Report, error) {
	return u.report("repair")
}

// running is a notice of a container that runs.
func running(t *testing.T) engine.Notice {
	t.Helper()
	n := sleepers(t, 1)[0]
	n.Started = time.Time{}
	return n
}

// TestLooksAgain: what cannot be judged is looked at again, a few times, and nothing
// is done with it until it is known to be stale.
func TestLooksAgain(t *testing.T) {
	for name, test := range map[string]struct {
		program  unsure
		restored bool
		want     []string
		outcome  string // that is counted, "" for none
	}{
		"healthy":            {unsure{2, plan.Healthy, nil}, false, []string{"inspect", "inspect", "inspect"}, ""},
		"stale":              {unsure{1, plan.Reexecuted, nil}, false, []string{"inspect", "inspect", "repair"}, "repaired"},
		"never known":        {unsure{9, plan.Healthy, nil}, false, []string{"inspect", "inspect", "inspect"}, ""},
		"restored":           {unsure{1, plan.Reexecuted, nil}, true, []string{"repair", "repair"}, "repaired"},
		"restored, no judge": {unsure{9, plan.Reexecuted, nil}, true, []string{"repair", "repair", "repair"}, "failed"},
	} {
		t.Run(name, func(t *testing.T) {
			program := test.program
			s := newScene(t, &faulty{}, 1)
			s.Repairer, s.Later = &program, []time.Duration{time.Millisecond, time.Millisecond}
			n := running(t)
			if test.restored {
				s.Restored(n)
			} else {
				s.look(t, n)
			}
			s.Wait()
			if !slices.Equal(program.calls, test.want) {
				t.Errorf("%v, want %v", program.calls, test.want)
			}
			for _, outcome := range []string{"repaired", "failed"} {
				want := 0.0
				if outcome == test.outcome {
					want = 1
				}
				if got := s.counted(status.ByAgent, outcome); got != want {
					t.Errorf("%s is counted %v times, want %v", outcome, got, want)
				}
			}
			if len(s.warned) > 0 != (test.outcome == "failed") {
				t.Errorf("%d warnings", len(s.warned))
			}
		})
	}
}

// look is Running, for a process that need not see any autofs mount.
func (s *scene) look(t *testing.T, n engine.Notice) {
	t.Helper()
	p := openProcess(t, n.PID)
	if stale, err := s.stale(n, p); err != nil {
		t.Error(err)
	} else if stale {
		s.repair(n, p)
	}
}

// TestLooksNoMore: neither after the end of the container nor after that of the agent.
func TestLooksNoMore(t *testing.T) {
	s := newScene(t, &faulty{}, 1)
	program := &unsure{unjudged: 9}
	s.Repairer, s.Later = program, []time.Duration{20 * time.Millisecond, time.Hour}
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := openProcess(t, cmd.Process.Pid)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if stale, err := s.stale(engine.Notice{PID: p.PID()}, p); stale || err != nil || len(program.calls) != 1 {
		t.Errorf("after the end of the container: %v, %v, %v", stale, err, program.calls)
	}
	n := running(t)
	time.AfterFunc(50*time.Millisecond, s.cancel)
	if s.repair(n, openProcess(t, n.PID)) || s.counted(status.ByAgent, "failed") != 0 {
		t.Error("an agent that ends is done with what it could not judge")
	}
	s.cancel()
	if stale, err := s.stale(n, openProcess(t, n.PID)); stale || !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of the agent: %v, %v", stale, err)
	}
	if s.repair(n, openProcess(t, n.PID)) {
		t.Error("an agent that ends is done with it")
	}
}

func openProcess(t *testing.T, pid int) *nsenter.Process {
	t.Helper()
	p, err := nsenter.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// failing stands in for autofs-restore-hook and fails at each inspection.
type failing struct{ faulty }

func (*failing) Inspect(context.Context, int) (*report.Report, error) {
	return &report.Report{Outcome: report.Failed, Error: "operation not permitted"}, nil
}

// TestInspectionFails: a container that could not be inspected is not taken for a
// healthy one.
func TestInspectionFails(t *testing.T) {
	s := newScene(t, &faulty{}, 1)
	s.Repairer = &failing{}
	n := running(t)
	if stale, err := s.stale(n, openProcess(t, n.PID)); stale || err == nil || !strings.Contains(err.Error(), "not permitted") {
		t.Errorf("%v, %v", stale, err)
	}
}
