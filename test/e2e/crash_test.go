package e2e

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// crashCase is a run of the program that is killed, with SIGKILL, when it is about to
// make the n-th system call with a side effect; n walks over the run.
type crashCase struct {
	name string
	// stage is CRIU's stage of the run, "" for a repair by hand.
	stage string
	// only is whether the program does not run at the other stages.
	only bool
	// occupied makes other file systems take the numbers that the masters remember.
	occupied bool
	shared   bool   // the container's mounts are
	strategy string // of the repair by hand
	waiting  func() []lab.Access
}

var crashCases = []crashCase{
	{name: "preserved, pre-restore", stage: "pre-restore"},
	{name: "preserved, pre-resume", stage: "pre-resume"},
	{name: "preserved, pre-resume, shared mounts", stage: "pre-resume", shared: true},
	{name: "reloaded, post-resume", stage: "post-resume"},
	{name: "reexecuted, post-resume", stage: "post-resume", occupied: true},
	{name: "reexecuted, post-resume, alone", stage: "post-resume", only: true},
	{name: "reexecuted, late, shared mounts", strategy: "auto", shared: true},
	{name: "reexecuted, late", strategy: "reexec"},
	{name: "restarted, late", strategy: "restart"},
	{name: "reloaded with waiters, late", strategy: "auto", waiting: automountAccesses},
}

// TestCrash kills the program at each of a sample of its system calls, with CRASH_WALK=1-
// at all of them (make test-chaos), each time in a new container. The next run, at CRIU's
// next stage or by hand, finishes the interrupted operation, or undoes and repeats it.
func TestCrash(t *testing.T) {
	requireHook(t)
	var table strings.Builder
	fmt.Fprintf(&table, "%-40s %6s %7s %7s %13s %9s %7s %5s\n", "killed run", "calls", "walked", "killed", "nothing left", "finished", "undone", "lost")
	for _, c := range crashCases {
		t.Run(c.name, func(t *testing.T) { table.WriteString(c.walk(t)) })
	}
	t.Logf("\n%s", table.String())
}

// crashWalk is a case with the shared state and the results of its steps.
type crashWalk struct {
	crashCase
	s *snapshot
	// before are the mounts after CRIU's restore, which are the same each time.
	before lab.Forest
	// all is whether the run is killed at each of its calls.
	all bool

	walked, killed, nothing, finished, undone, lost int
}

// walk kills the run at its calls, and returns a line of the table.
func (c crashCase) walk(t *testing.T) string {
	w := &crashWalk{crashCase: c}
	w.s = sharedCheckpoint(t, lab.Options{Shared: c.shared})
	calls := w.complete(t, "to the end")
	begin := time.Now()
	points := crashPoints(t, calls)
	w.all = len(points) > len(calls)/2
	for _, n := range points {
		if deadline, ok := t.Deadline(); ok && time.Until(deadline) < crashReserve {
			t.Errorf("no time for call %d and those after it", n)
			break
		}
		if !t.Run(strconv.Itoa(n), func(t *testing.T) { w.step(t, lab.NewKiller(t, n)) }) {
			w.lost++
		}
	}
	t.Logf("calls: %s; %d steps took %s", count(calls), w.walked, time.Since(begin).Round(time.Second))
	return fmt.Sprintf("%-40s %6d %7d %7d %13d %9d %7d %5d\n", c.name, len(calls), w.walked-1, w.killed, w.nothing, w.finished, w.undone, w.lost)
}

// crashCalls are the numbers of calls of the cases' complete runs, by the name of the
// case.
var crashCalls = make(map[string]int)

// complete makes a step with a complete run, and returns its calls.
func (c *crashWalk) complete(t *testing.T, name string) []string {
	t.Helper()
	var calls []string
	if !t.Run(name, func(t *testing.T) { calls = c.step(t, lab.NewKiller(t, 0)) }) || len(calls) == 0 {
		t.Fatalf("a run that is not killed: %d calls", len(calls))
	}
	crashCalls[c.name] = len(calls)
	return calls
}

// countCalls returns the number of the run's calls. It makes one run for that, unless
// another test has made it.
func (c *crashWalk) countCalls(t *testing.T) int {
	t.Helper()
	if crashCalls[c.name] == 0 {
		c.complete(t, c.name+" to the end")
	}
	return crashCalls[c.name]
}

// crashReserve is the time that is reserved for the end of the test.
const crashReserve = 15 * time.Second

// crashSample is the number of calls of a run at which an ordinary test kills it.
const crashSample = 3

// crashPoints returns the calls at which to kill: CRASH_WALK=FIRST-LAST, or FIRST-; with
// the suffix /STEP every STEP-th of them, with /kinds those that differ from the four
// before.
func crashPoints(t *testing.T, calls []string) []int {
	t.Helper()
	first, last, step := 1.0, float64(len(calls)), float64(len(calls)-1)/(crashSample-1)
	kinds := false
	if text := os.Getenv("CRASH_WALK"); text != "" {
		step = 1
		text, every, _ := strings.Cut(text, "/")
		from, to, _ := strings.Cut(text, "-")
		kinds = every == "kinds"
		for i, field := range []string{from, to, every} {
			if n, err := strconv.Atoi(field); err == nil {
				*[]*float64{&first, &last, &step}[i] = float64(n)
			} else if field != "" && field != "kinds" {
				t.Fatalf("CRASH_WALK=%q: want FIRST-LAST/STEP", os.Getenv("CRASH_WALK"))
			}
		}
	}
	var points []int
	for n := first; n < min(last, float64(len(calls)))+0.5; n += step {
		point := int(n + 0.5)
		if !kinds || !slices.Contains(calls[max(0, point-5):point-1], calls[point-1]) {
			points = append(points, point)
		}
	}
	return points
}

// count counts equal strings: "3 mount, 1 umount2".
func count(words []string) string {
	number := make(map[string]int)
	var order []string
	for _, w := range words {
		if number[w] == 0 {
			order = append(order, w)
		}
		number[w]++
	}
	var list []string
	for _, w := range order {
		list = append(list, fmt.Sprintf("%d %s", number[w], w))
	}
	return strings.Join(list, ", ")
}
