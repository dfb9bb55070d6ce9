package bench

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// workStages are CRIU's stages at which the program works.
var workStages = []string{"pre-restore", "post-setup-namespaces", "pre-resume", "post-resume"}

// calls are system calls, counted by name.
type calls map[string]int

func (c calls) total() int {
	sum := 0
	for _, n := range c {
		sum += n
	}
	return sum
}

// timing are the calls that depend on the scheduling of threads and the start of the Go
// runtime: they differ from run to run.
var timing = []string{
	"futex", "nanosleep", "sched_yield", "epoll_pwait", "tgkill", "getpid", "rt_sigreturn", "restart_syscall", "poll",
	"madvise", "mmap", "munmap", "clone", "clone3", "sigaltstack", "gettid", "rt_sigprocmask", "rt_sigaction", "eventfd2",
	"epoll_create1", "epoll_ctl", "wait4", "waitid", "exit", "pidfd_send_signal", "flock",
	fillers,
}

// The number of superblocks that fill device numbers depends on the machine's other file
// systems; each takes this many calls.
const (
	fillers   = "(fillers)"
	perFiller = 9
)

// work returns the number of the calls without timing.
func (c calls) work() int {
	sum := 0
	for name, n := range c {
		if !slices.Contains(timing, name) {
			sum += n
		}
	}
	return sum - perFiller*c[fillers]
}

// installTraced makes the program CRIU's action script, under strace. CRIU stays
// its parent (-D).
func installTraced(b testing.TB) (dir string) {
	b.Helper()
	dir, err := os.MkdirTemp(lab.Scratch(b, "traces"), "trace")
	if err != nil {
		b.Fatal(err)
	}
	lab.InstallWrappedScript(b, "strace -DDD -f -ttt -T -o "+dir+"/$CRTOOLS_SCRIPT_ACTION "+lab.Hook(), "")
	return dir
}

var callLine = regexp.MustCompile(`^(\d+) +(?:\d+\.\d+ )?([a-z0-9_]+)\(`)

// readTrace counts the system calls of the program itself: of its first process, with all
// threads, and of children that execute no other program.
func readTrace(b testing.TB, path string) calls {
	b.Helper()
	counted := countCalls(waitTrace(b, path))
	if counted.total() == 0 {
		b.Fatalf("%s: no system calls", path)
	}
	return counted
}

// countCalls counts the system calls in strace's output.
func countCalls(text string) calls {
	counted := calls{}
	for line := range strings.Lines(text) {
		if m := callLine.FindStringSubmatch(line); m != nil {
			counted[m[2]]++
			if strings.Contains(line, `fsopen("ramfs"`) {
				counted[fillers]++
			}
		}
	}
	return counted
}

// waitTrace waits until strace has written the end of the first process.
func waitTrace(b testing.TB, path string) string {
	b.Helper()
	var text []byte
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		var err error
		if text, err = os.ReadFile(path); err != nil {
			b.Fatal(err)
		}
		first, _, _ := strings.Cut(string(text), " ")
		if strings.Contains(string(text), "\n"+first+" ") && regexp.MustCompile(`(?m)^`+first+` +\d+\.\d+ \+\+\+ `).Match(text) {
			return string(text)
		}
	}
	b.Fatalf("%s: strace did not see the end of the program:\n%s", path, text)
	return ""
}

// tracedRestore restores with the program traced, and counts its system calls at each
// stage.
func tracedRestore(b testing.TB, checkpoint *lab.Checkpoint, size int) map[string]calls {
	b.Helper()
	dir := installTraced(b)
	restored := checkpoint.Restore(b, lab.RestoreOptions{})
	defer end(b, restored)
	if report := restored.ReadReport(b); countPreserved(b, report) != size {
		b.Errorf("traced: %d of %d automounts were preserved", countPreserved(b, report), size)
	}
	counted := map[string]calls{}
	for _, stage := range workStages {
		counted[stage] = readTrace(b, filepath.Join(dir, stage))
		if keep := os.Getenv("BENCH_TRACES"); keep != "" {
			text, err := os.ReadFile(filepath.Join(dir, stage))
			if err == nil {
				err = os.WriteFile(filepath.Join(keep, fmt.Sprintf("%s-%d", stage, size)), text, 0o600)
			}
			if err != nil {
				b.Error(err)
			}
		}
	}
	return counted
}

// callSizes are the numbers of automounts whose difference gives the calls a
// mount.
var callSizes = [2]int{10, 110}

// BenchmarkCalls prints the number of system calls of a restore, and of each further
// mount.
func BenchmarkCalls(b *testing.B) {
	lab.RequireNode(b)
	widenSockets(b)
	counted := countedRestores(b)
	for _, stage := range workStages {
		few, many := counted[0][stage], counted[1][stage]
		fmt.Printf("\n%s: %d system calls with %d automounts, %d with %d; %.1f a mount\n", stage,
			few.work(), callSizes[0], many.work(), callSizes[1], slope(few, many))
		printCalls(few, many)
	}
}

func countedRestores(b testing.TB) (counted [2]map[string]calls) {
	b.Helper()
	for i, size := range callSizes {
		counted[i] = tracedRestore(b, checkpointOf(b, size), size)
	}
	return counted
}

func slope(few, many calls) float64 {
	return float64(many.work()-few.work()) / float64(callSizes[1]-callSizes[0])
}

func printCalls(few, many calls) {
	var names []string
	for name := range many {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return many[b] - many[a] })
	for _, name := range names {
		fmt.Printf("  %-20s %6d %6d  %6.2f\n", name, few[name], many[name],
			float64(many[name]-few[name])/float64(callSizes[1]-callSizes[0]))
	}
}

// checkpointOf creates a container with that many automounts and checkpoints it.
func checkpointOf(b testing.TB, size int) *lab.Checkpoint {
	b.Helper()
	return checkpointOfFiles(b, size, nil)
}

// checkpointOfFiles is checkpointOf for a container with further files.
func checkpointOfFiles(b testing.TB, size int, more map[string]string) *lab.Checkpoint {
	b.Helper()
	return startAutomounts(b, size, more).Checkpoint(b)
}

// startAutomounts starts a container with that many automounts and further files.
func startAutomounts(b testing.TB, size int, more map[string]string) *lab.Container {
	b.Helper()
	files := automounts(size)
	maps.Copy(files, more)
	c := lab.Start(b, lab.Options{Plain: true, Files: files, MountRateLimit: true})
	if have := len(lab.Autofs(b, c.PID)); have != size {
		b.Fatalf("the container has %d automounts, want %d", have, size)
	}
	settle(b, c)
	return c
}
