package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// traced runs the repair by hand under strace, which looks at one system call
// only, and counts how often the thread of the program made it that did most.
func traced(t *testing.T, s *snapshot, r *lab.Restored, call string, options ...string) (count int, killed bool) {
	t.Helper()
	log := filepath.Join(lab.Scratch(t, r.ID+"-strace"), call)
	args := append([]string{"-f", "-qq", "-o", log, "-e", "trace=" + call}, options...)
	args = append(args, lab.Hook(), "repair", strconv.Itoa(r.PID), "--images", s.Images, "--strategy", "retell")
	cmd := exec.Command("strace", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stop := time.AfterFunc(30*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	defer stop.Stop()
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		killed = exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
	}
	if err != nil && !killed {
		t.Fatalf("strace: %v", err)
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

// killedAt runs the repair and kills it when it is about to make a system call
// for the n-th time.
func killedAt(t *testing.T, s *snapshot, r *lab.Restored, call string, n int) bool {
	t.Helper()
	_, killed := traced(t, s, r, call, "-e", "inject="+call+":signal=KILL:when="+strconv.Itoa(n))
	return killed
}

// checkRunsOn wants a systemd that answers and that nobody holds.
func checkRunsOn(t *testing.T, r *lab.Restored) {
	t.Helper()
	var o lab.Touch
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		o = r.Try(t, lab.TouchLimit, "systemctl", "is-system-running")
		if strings.TrimSpace(o.Output) == "running" {
			r.CheckUntouched(t)
			return
		}
	}
	t.Fatalf("systemd does not run on: %s", o)
}

// corrected reports whether systemd has the new numbers. It is an error if it
// has some of both.
func corrected(t *testing.T, r *lab.Restored) bool {
	t.Helper()
	accesses := systemdAccesses()
	served := 0
	touches := r.TouchAccesses(t, accesses, 150*time.Millisecond)
	for i, o := range touches {
		if accesses[i].Answers(o) {
			served++
		}
	}
	if served != 0 && served != len(accesses) {
		t.Errorf("systemd has some of the old and some of the new numbers: %v", touches)
	}
	return served > 0
}

// TestRetoldKilled kills the program at its ptrace calls, one after the other,
// and where it writes systemd's state. RETOLD_STEP=1 walks over all of them.
func TestRetoldKilled(t *testing.T) {
	requireHook(t)
	for _, suite := range systemdVersions {
		t.Run(suite, func(t *testing.T) {
			s := take(t, lab.Options{Systemd: suite})
			r := restoreStale(t, s)
			total, _ := traced(t, s, r, "ptrace")
			r.Settle(t)
			reads, _ := traced(t, s, r, "pread64")
			r.Kill(t)
			w := walk{snapshot: s}
			w.at(t, "ptrace", steps(total))
			w.at(t, "pwrite64", []int{1})
			w.at(t, "ftruncate", []int{1})
			w.at(t, "pread64", []int{1, reads}) // the last one reads back what was written
			t.Logf("%d calls of ptrace, killed at %d of them; systemd had the old numbers %d times, the corrected ones %d times",
				total, len(steps(total)), w.old, w.new)
			if w.old == 0 || w.new == 0 {
				t.Error("the walk did not reach both sides of the correction")
			}
		})
	}
}

// steps are the calls to be killed at: the first and last few, and between them
// those at equal distances.
func steps(total int) []int {
	step := total/8 + 1
	if n, err := strconv.Atoi(os.Getenv("RETOLD_STEP")); err == nil && n > 0 {
		step = n
	}
	const edge = 3
	var list []int
	for n := 1; n <= total; n++ {
		if n <= edge || n > total-edge || n%step == 0 {
			list = append(list, n)
		}
	}
	return list
}

// walk repairs one container again and again, as long as it stays stale.
type walk struct {
	*snapshot
	restored *lab.Restored
	old, new int
}

func (w *walk) at(t *testing.T, call string, list []int) {
	t.Helper()
	for _, n := range list {
		if w.restored == nil {
			w.restored = restoreStale(t, w.snapshot)
		}
		killed := killedAt(t, w.snapshot, w.restored, call, n)
		checkRunsOn(t, w.restored)
		if corrected(t, w.restored) {
			w.new++
			w.finish(t, !killed)
		} else {
			w.old++
		}
		if t.Failed() {
			t.Fatalf("killed (%t) at call %d of %s", killed, n, call)
		}
	}
	if w.restored != nil {
		w.finish(t, false)
	}
}

// finish lets the program end its work in the container, and ends that.
func (w *walk) finish(t *testing.T, done bool) {
	t.Helper()
	r := w.restored
	w.restored = nil
	if !done {
		repairByHand(t, w.snapshot, r)
	}
	r.CheckAnswers(t, lab.Accesses)
	// What [corrected] touched is mounted since, and did not ask systemd again.
	r.Run(t, "umount", lab.Idle, lab.Blank, lab.Binfmt)
	r.Settle(t)
	r.CheckAnswers(t, lab.Accesses)
	checkNoWaiters(t, r.Container)
	checkRunsOn(t, r)
	changes := slices.DeleteFunc(unitsThatNoticed(w.units, r.Units(t)), func(change string) bool {
		// Started by the accesses.
		return strings.Contains(change, ".mount: ") || strings.Contains(change, ".automount: ") && !strings.Contains(change, "failed")
	})
	for _, change := range changes {
		t.Errorf("a unit noticed: %s", change)
	}
	lab.WaitNoneRunning(t, time.Second)
	r.Kill(t)
}
