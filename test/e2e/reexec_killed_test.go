package e2e

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// countTraced runs the repair by hand under strace, which traces one system call only, and
// returns how often the busiest thread of the program made it.
func countTraced(t *testing.T, s *snapshot, r *lab.Restored, call string, options ...string) (count int, killed bool) {
	t.Helper()
	log := filepath.Join(lab.Scratch(t, r.ID+"-strace"), call)
	args := append([]string{"-f", "-qq", "-o", log, "-e", "trace=" + call}, options...)
	args = append(args, lab.Hook(), "repair", strconv.Itoa(r.PID), "--strategy", "reexec")
	cmd := exec.Command("strace", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stop := time.AfterFunc(30*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	defer stop.Stop()
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		killed = exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
	}
	if err != nil && !killed {
		t.Fatalf("strace: %v\n%s", err, output.String())
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	byThread := make(map[string]int) // as strace counts for an injection
	for line := range strings.Lines(string(text)) {
		if thread, rest, ok := strings.Cut(line, " "); ok && strings.HasPrefix(strings.TrimLeft(rest, " "), call+"(") {
			byThread[thread]++
			count = max(count, byThread[thread])
		}
	}
	return count, killed
}

// killAt runs the repair and kills it when it is about to make a system call
// for the n-th time.
func killAt(t *testing.T, s *snapshot, r *lab.Restored, call string, n int) bool {
	t.Helper()
	_, killed := countTraced(t, s, r, call, "-e", "inject="+call+":signal=KILL:when="+strconv.Itoa(n))
	return killed
}

// checkRunsOn checks that systemd answers and has no tracer.
func checkRunsOn(t *testing.T, r *lab.Restored) {
	t.Helper()
	var o lab.Touch
	for deadline := time.Now().Add(lab.AnswerLimit); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		o = r.Try(t, lab.AnswerLimit, "systemctl", "is-system-running")
		if strings.TrimSpace(o.Output) == "running" {
			r.CheckUntouched(t)
			return
		}
	}
	t.Fatalf("systemd does not keep running: %s", o)
}

// TestReexecutedKilled kills the program at its ptrace calls and where it reads and
// writes systemd's state: at all of them, or, for a systemd that seals its state, at a
// sample. REEXEC_WALK=1-200 walks over these calls of ptrace, REEXEC_WALK=1- over all
// (make test-chaos).
func TestReexecutedKilled(t *testing.T) {
	requireHook(t)
	for _, suite := range systemdVersions {
		t.Run(suite, func(t *testing.T) {
			s := sharedCheckpoint(t, lab.Options{Systemd: suite})
			w := startWalk(t, s)
			w.makeStale(t)
			total, _ := countTraced(t, s, w.r, "ptrace")
			w.makeStale(t)
			reads, _ := countTraced(t, s, w.r, "pread64")
			begin := time.Now()
			calls := walkedCalls(t, total)
			w.kill(t, "ptrace", calls...)
			// The reads search for the end of the state, before the write, and read the
			// written data back, at the start and at the end. strace counts calls of each
			// thread apart, and the first pwrite64 of one wipes the environment.
			w.kill(t, "pread64", reads/2, reads/2+1, reads)
			t.Logf("%d calls of ptrace; killed at %d of them, from %d to %d, and at 3 others, in %s: "+
				"%d times killed, old numbers %d, new numbers %d, finished by the next run %d, lost %d",
				total, len(calls), calls[0], calls[len(calls)-1], time.Since(begin).Round(time.Second),
				w.killed, w.old, w.corrected, w.finished, w.steps-w.finished)
			w.finish(t)
		})
	}
}

// walked returns the calls at which to kill.
func walkedCalls(t *testing.T, total int) []int {
	t.Helper()
	const sample = 12
	first, last, step := 1, total, max(1, float64(total-1)/(sample-1))
	if text := os.Getenv("REEXEC_WALK"); text != "" {
		from, to, _ := strings.Cut(text, "-")
		var err error
		if first, err = strconv.Atoi(from); err != nil {
			t.Fatalf("REEXEC_WALK=%q: want FIRST-LAST or FIRST-", text)
		}
		if n, err := strconv.Atoi(to); err == nil {
			last = min(last, n)
		}
		step = 1
	}
	var list []int
	for n := float64(first); n < float64(last)+0.5; n += step {
		list = append(list, int(n+0.5))
	}
	if len(list) == 0 {
		t.Skipf("skipped: nothing to walk: %d calls", total)
	}
	return list
}
