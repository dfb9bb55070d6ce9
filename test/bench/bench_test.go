// Package bench measures the cost of the program in a restore, beside CRIU's own script
// for the same purpose, in the laboratory's node: `make bench`.
//
// BENCH_SIZES are the numbers of automounts (default "1 4 100 500"), BENCH_ROUNDS is the
// number of measurements of each (default 3), BENCH_LIMIT is how long one run of CRIU's
// script may take before it is stopped (default 15s).
package bench

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

var once sync.Once

// BenchmarkAutomounts prints one table. It has its own rounds: each runs all variants one
// after the other, so that other load on the machine affects all of them alike.
func BenchmarkAutomounts(b *testing.B) {
	lab.RequireNode(b)
	if _, err := os.Stat(lab.Hook()); err != nil {
		b.Fatalf("the program to measure: %v (make build, or HOOK=/path)", err)
	}
	once.Do(func() {
		fmt.Print("\n" + machine() + "\n")
		widenSockets(b)
		var rows []row
		for word := range strings.FieldsSeq(setting("BENCH_SIZES", "1 4 100 500")) {
			size, err := strconv.Atoi(word)
			if err != nil || size < 1 {
				b.Fatalf("BENCH_SIZES: %q is no number of automounts", word)
			}
			rows = append(rows, measure(b, size))
		}
		printTable(rows)
	})
	b.ReportMetric(0, "ns/op") // in the table
}

// row has the measurements with one number of automounts.
type row struct {
	size                     int
	plain, hook              series // the whole of runc restore, without and with the program
	reserve, prepare         series
	preserve                 series
	repair, others, added    series // others: the stages of CRIU at which the program has nothing to do
	script, restart, command series
	stopped                  bool // CRIU's script did not end within the limit; done is the number of restarted units
	done                     int
}

func measure(b *testing.B, size int) row {
	r := row{size: size}
	checkpoint := checkpointOf(b, size)
	rounds, err := strconv.Atoi(setting("BENCH_ROUNDS", "3"))
	if err != nil || rounds < 1 {
		b.Fatalf("BENCH_ROUNDS: %v", err)
	}
	limit, err := time.ParseDuration(setting("BENCH_LIMIT", "15s"))
	if err != nil {
		b.Fatalf("BENCH_LIMIT: %v", err)
	}
	var spent time.Duration // by CRIU's script
	for range rounds {
		r.withHook(b, checkpoint)
		r.withCommand(b, checkpoint)
		if !r.stopped && spent <= limit {
			spent += r.withScript(b, checkpoint, limit)
		}
		r.withRestart(b, checkpoint)
	}
	return r
}

// withHook restores with the program as CRIU's action script.
func (r *row) withHook(b *testing.B, checkpoint *lab.Checkpoint) {
	installTimed(b, lab.Hook())
	restored := checkpoint.Restore(b, lab.RestoreOptions{})
	defer end(b, restored)
	stages := stageTimes(b, lab.Hook(), restored.Log)
	var others, added time.Duration
	for stage, took := range stages {
		added += took
		if !slices.Contains(workStages, stage) {
			others += took
		}
	}
	if !preserved(b, restored.ReadReport(b), r.size) {
		return
	}
	r.hook.add(restored.Took)
	r.reserve.add(stages["pre-restore"])
	r.prepare.add(stages["post-setup-namespaces"])
	r.preserve.add(stages["pre-resume"])
	r.repair.add(stages["post-resume"])
	r.others.add(others)
	r.added.add(added)
	restored.CheckAnswers(b, lastAccess(r.size))
}

// withCommand restores without an action script, and repairs by command.
func (r *row) withCommand(b *testing.B, checkpoint *lab.Checkpoint) {
	restored := r.restorePlain(b, checkpoint)
	defer end(b, restored)
	result := lab.RunHook(b, nil, nil, "repair", strconv.Itoa(restored.PID), "--json")
	r.command.add(result.Took)
	if report := lab.ParseReport(b, result.Stdout); report.Outcome != "repaired" {
		b.Errorf("outcome %q", report.Outcome)
	}
}

func (r *row) restorePlain(b *testing.B, checkpoint *lab.Checkpoint) *lab.Restored {
	checkpoint.InstallGroupsOnly(b)
	restored := checkpoint.Restore(b, lab.RestoreOptions{})
	r.plain.add(restored.Took)
	return restored
}

// preserved checks that the mounts were really preserved. A run in which they were not
// fails the benchmark, and does not count.
func preserved(b *testing.B, report lab.Report, size int) bool {
	count := countPreserved(b, report)
	// A mount is reported once for each mount namespace that shows it.
	if count >= size && count == len(report.Mounts) {
		return true
	}
	b.Errorf("%d of %d automounts were preserved", count, size)
	return false
}

func countPreserved(b testing.TB, report lab.Report) int {
	count := 0
	for _, m := range report.Mounts {
		if m.Outcome == "preserved" {
			count++
		} else {
			b.Logf("%s: %s (%s)", m.Path, m.Outcome, m.Reason)
		}
	}
	return count
}

// end ends a container. The kernel frees the device numbers of a mount namespace a little
// later (fs/namespace.c, delayed_mntput_work), and the next restore needs them.
func end(b testing.TB, restored *lab.Restored) {
	restored.Kill(b)
	time.Sleep(100 * time.Millisecond)
}

// widenSockets enlarges socket buffers, so that CRIU 4.1.1 can restore more than about
// 140 pipes of one process: it sends their descriptors to its own datagram socket before
// it reads any, and waits forever when that is full (criu/files.c, send_fds).
func widenSockets(b testing.TB) { writeSetting(b, "/proc/sys/net/core/wmem_default", "8388608") }

// writeSetting changes a setting of the kernel until the end of the benchmark.
func writeSetting(b testing.TB, file, value string) {
	b.Helper()
	before, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(value), 0); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := os.WriteFile(file, before, 0); err != nil {
			b.Error(err)
		}
	})
}

func setting(name, standard string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return standard
}
