package e2e

import (
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
// has some of both. What hangs here leaves a request that nobody waits for.
func corrected(t *testing.T, r *lab.Restored) bool {
	t.Helper()
	accesses := systemdAccesses()
	served := 0
	touches := r.TouchAccesses(t, accesses, 300*time.Millisecond)
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

// TestRetoldKilled kills the program at its ptrace calls and where it writes
// systemd's state. RETOLD_STEP=1 walks over all calls, with every systemd.
func TestRetoldKilled(t *testing.T) {
	requireHook(t)
	step, _ := strconv.Atoi(os.Getenv("RETOLD_STEP"))
	// Not sid: a systemd 262 that CRIU 4.1.1 has restored is busy with itself, with
	// or without a repair, and may then not start a service within our 8 s.
	suites := []string{"bookworm"}
	if step > 0 {
		suites = systemdVersions
	}
	for _, suite := range suites {
		t.Run(suite, func(t *testing.T) {
			s := take(t, lab.Options{Systemd: suite})
			r := restoreStale(t, s)
			total, _ := traced(t, s, r, "ptrace")
			r.Settle(t)
			reads, _ := traced(t, s, r, "pread64")
			r.Kill(t)
			t.Logf("%d calls of ptrace", total)
			kill(t, s, "ptrace", steps(total, step)...)
			kill(t, s, "pwrite64", 1)
			kill(t, s, "ftruncate", 1)
			kill(t, s, "pread64", 1, 2*reads) // the last one reads back what was written
		})
	}
}

// steps are the calls to be killed at: the first, the last and those between
// them at equal distances.
func steps(total, step int) []int {
	if step <= 0 {
		step = total/4 + 1
	}
	list := []int{1}
	for n := 1 + step; n < total; n += step {
		list = append(list, n)
	}
	return append(list, total)
}

// kill restores, runs the program and kills it at its n-th call, and lets it
// run again: systemd runs on, with the old numbers or the corrected ones, and
// the second run finishes the work.
func kill(t *testing.T, s *snapshot, call string, list ...int) {
	t.Helper()
	for _, n := range list {
		t.Run(call+" "+strconv.Itoa(n), func(t *testing.T) {
			r := restoreStale(t, s)
			killed := killedAt(t, s, r, call, n)
			checkRunsOn(t, r)
			t.Logf("killed: %t, corrected: %t", killed, corrected(t, r))
			repairByHand(t, s, r)
			r.CheckAnswers(t, lab.Accesses)
			// What was touched before is mounted since, and did not ask systemd again.
			r.Run(t, "umount", lab.Idle, lab.Blank, lab.Binfmt)
			r.Settle(t)
			r.CheckAnswers(t, lab.Accesses)
			checkNoWaiters(t, r.Container)
			checkRunsOn(t, r)
			for _, change := range unitsThatNoticed(s.units, r.Units(t)) {
				// Automounts and their mounts were started by the accesses.
				if !strings.Contains(change, "mount: ") || strings.Contains(change, "failed") {
					t.Errorf("a unit noticed: %s", change)
				}
			}
			lab.WaitNoneRunning(t, time.Second)
		})
	}
}
