package bench

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// stageSeries are the measurements of one build of the program.
type stageSeries struct {
	stages        map[string]series // of workStages
	others, added series
}

// newStageSeries returns empty measurements of each build.
func newStageSeries() map[string]*stageSeries {
	measured := map[string]*stageSeries{}
	for _, program := range builds() {
		measured[program] = &stageSeries{stages: map[string]series{}}
	}
	return measured
}

// BenchmarkStages compares how long CRIU waits for the program at each stage with another
// build, BEFORE=/path, measured in the same rounds. Then it shows what the time is spent on.
func BenchmarkStages(b *testing.B) {
	lab.RequireNode(b)
	widenSockets(b)
	const rounds = 7
	fmt.Printf("\n%s\nMilliseconds that CRIU waits for the program at each stage, its start included; medians of %d restores, and the least.\n\n", machine(), rounds)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "automounts\t"+strings.Join(workStages, "\t")+"\tother stages\tadded\tbuild\t")
	var pictures []func()
	scale := map[int]time.Duration{} // that of both builds, to compare them
	for _, size := range []int{4, 100} {
		checkpoint := checkpointOf(b, size)
		measured := newStageSeries()
		for range rounds {
			for _, program := range builds() {
				measured[program].add(b, checkpoint, program, size)
			}
		}
		for _, program := range builds() {
			m := measured[program]
			fmt.Fprintf(w, "%d\t", size)
			for _, stage := range workStages {
				fmt.Fprintf(w, "%s\t", m.stages[stage].withLeast())
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t\n", m.others.withLeast(), m.added.withLeast(), program)
			stages := tracedStages(b, checkpoint, program, size)
			scale[size] = max(scale[size], longest(stages))
			pictures = append(pictures, func() { printTimelines(b, stages, program, size, scale[size]) })
		}
		if list := builds(); len(list) > 1 {
			fmt.Fprintf(w, "\t\t\t\t\t\t%.2f\tbefore/now\t\n", quotient(measured[list[1]].added, measured[list[0]].added))
		}
	}
	w.Flush()
	for _, show := range pictures {
		show()
	}
}

// settle waits until systemd is at rest, as users' containers are at a checkpoint: it
// ignores mount events for a second after five of them (mount.c,
// sd_event_source_set_ratelimit), and so does a clone for the rest of that time.
func settle(b testing.TB, c *lab.Container) {
	b.Helper()
	c.Settle(b)
	time.Sleep(1100 * time.Millisecond)
}

// add restores once with a build.
func (m *stageSeries) add(b *testing.B, checkpoint *lab.Checkpoint, program string, size int) {
	b.Helper()
	installTimed(b, program)
	restored := checkpoint.Restore(b, lab.RestoreOptions{})
	defer end(b, restored)
	stages := stageTimes(b, program, restored.Log)
	if !preserved(b, restored.ReadOldReport(b), size) {
		return
	}
	var others, added time.Duration
	for stage, took := range stages {
		added += took
		if slices.Contains(workStages, stage) {
			m.stages[stage] = append(m.stages[stage], took)
		} else {
			others += took
		}
	}
	m.others.add(others)
	m.added.add(added)
}
