package bench

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// withoutProgram is the name of a storm without the program, among those of builds.
const withoutProgram = "without"

// storm are the measurements of storms with one build of the program: of each, the median
// of its containers and the worst.
type storm struct {
	stages     map[string]series // of workStages, the median
	stop, read [2]series         // median, worst
	took       [2]series
	wall       series // until the last restore has ended
	busy       series // processor time of the machine for each restore
	outcomes   map[string]int
}

// BenchmarkStorm restores clones of one checkpoint, with 4 automounts of systemd each, at
// the same time. All clones remember the same device numbers, and one gets them.
// STORM_SIZES are the numbers of clones. BEFORE=/path is another build of the program,
// measured in the same rounds.
func BenchmarkStorm(b *testing.B) {
	lab.RequireNode(b)
	const automountsOfEach = 4
	rounds, err := strconv.Atoi(setting("BENCH_ROUNDS", "3"))
	if err != nil || rounds < 1 {
		b.Fatalf("BENCH_ROUNDS: %v", err)
	}
	allowInotify(b)
	access := lastAccess(automountsOfEach)[0]
	files := automounts(automountsOfEach)
	maps.Copy(files, lab.StopwatchFiles(access))
	c := lab.Start(b, lab.Options{Plain: true, Roles: true, Files: files, MountRateLimit: true})
	c.StartStopwatch(b)
	settle(b, c)
	checkpoint := c.Checkpoint(b)
	fmt.Printf(`
%s
Clones of one checkpoint with %d automounts each, restored at the same time: milliseconds, medians of %d storms, of the
median clone and the slowest one. Preserve is how long the program stops the tasks; read is the longest read of an idle
automount by a process of the clone from the resume on. The processor time is that of the machine, for each restore.

`, machine(), automountsOfEach, rounds)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, strings.Join([]string{
		"clones", "reserve", "prepare", "preserve", "slowest", "repair", "read", "slowest",
		"restore", "slowest", "all restored", "processor", "build", "outcomes", "",
	}, "\t"))
	for word := range strings.FieldsSeq(setting("STORM_SIZES", "1 16")) {
		count, err := strconv.Atoi(word)
		if err != nil || count < 1 {
			b.Fatalf("STORM_SIZES: %q is no number of clones", word)
		}
		programs := append(builds(), withoutProgram)
		measured := map[string]*storm{}
		for _, program := range programs {
			measured[program] = &storm{stages: map[string]series{}, outcomes: map[string]int{}}
		}
		clones := checkpoint.Clones(b, count)
		for range rounds {
			for _, program := range programs {
				measured[program].restoreAll(b, checkpoint, clones, program)
			}
		}
		for _, program := range programs {
			m := measured[program]
			fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%v\t\n", count,
				m.stages["pre-restore"], m.stages["post-setup-namespaces"], m.stop[0], m.stop[1], m.stages["post-resume"],
				m.read[0], m.read[1], m.took[0], m.took[1], m.wall, m.busy, program, m.outcomes)
		}
	}
	w.Flush()
}

// restoreAll restores all clones at once.
func (m *storm) restoreAll(b *testing.B, checkpoint *lab.Checkpoint, clones []*lab.Checkpoint, program string) {
	b.Helper()
	if program == withoutProgram {
		checkpoint.InstallGroupsOnly(b)
	} else {
		installTimed(b, program)
	}
	checkpoint.ReleaseStopwatches(b, program != withoutProgram)
	begin, busy := time.Now(), busyTime(b)
	restored, err := lab.RestoreAll(b, clones)
	m.wall.add(time.Since(begin))
	m.busy.add((busyTime(b) - busy) / time.Duration(len(clones)))
	defer func() {
		lab.KillAll(b, restored)
		time.Sleep(time.Second) // their superblocks are freed a little later
	}()
	if err != nil {
		b.Error(err)
	}
	m.look(b, restored, program)
}

// look reads the measurements of one storm.
func (m *storm) look(b *testing.B, restored []*lab.Restored, program string) {
	b.Helper()
	var took, stop, read series
	stages := map[string]series{}
	for _, r := range restored {
		took.add(r.Took)
		if program == withoutProgram {
			continue
		}
		times := stageTimes(b, program, r.Log)
		for _, stage := range workStages {
			stages[stage] = append(stages[stage], times[stage])
		}
		stop.add(times["pre-resume"])
		longest, err := r.LongestRead(lab.TouchLimit)
		if err != nil {
			b.Error(err)
		}
		read.add(longest)
		for _, mount := range r.ReadOldReport(b).Mounts {
			m.outcomes[mount.Outcome]++
		}
	}
	for stage, times := range stages {
		m.stages[stage] = append(m.stages[stage], times.median())
	}
	for to, from := range map[*[2]series]series{&m.took: took, &m.stop: stop, &m.read: read} {
		if len(from) > 0 {
			to[0].add(from.median())
			to[1].add(slices.Max(from))
		}
	}
}

// allowInotify lets a hundred systemds watch files: root may have 128 instances of
// inotify.
func allowInotify(b testing.TB) { writeSetting(b, "/proc/sys/fs/inotify/max_user_instances", "4096") }

// busyTime is the processor time of the machine that was not idle, from /proc/stat in
// ticks of 10 ms.
func busyTime(b testing.TB) time.Duration {
	b.Helper()
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		b.Fatal(err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	var ticks time.Duration
	for i, word := range strings.Fields(line)[1:9] {
		n, err := strconv.Atoi(word)
		if err != nil {
			b.Fatal(err)
		}
		if i != 1 && i != 3 && i != 4 { // nice (other work on the machine), idle, iowait
			ticks += time.Duration(n)
		}
	}
	return ticks * 10 * time.Millisecond
}
