package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// BenchmarkReexecuted compares a re-execution that corrects numbers with systemd's own
// part of it: a re-execution without the program.
func BenchmarkReexecuted(b *testing.B) {
	lab.RequireNode(b)
	const rounds = 5
	fmt.Print("\n" + machine() + "\nreexecuted: \"repair --strategy reexec\", the whole command. bare: from SIGTERM until systemd listens again.\n\n")
	for _, size := range []int{4, 100} {
		widenSockets(b)
		checkpoint := checkpointOf(b, size)
		checkpoint.InstallGroupsOnly(b)
		var reexecuted, bare series
		for range rounds {
			restored := checkpoint.Restore(b, lab.RestoreOptions{})
			result := lab.RunHook(b, nil, nil, "repair", strconv.Itoa(restored.PID), "--strategy", "reexec", "--json")
			for _, m := range lab.ParseReport(b, result.Stdout).Mounts {
				// Some may have got their old numbers by chance.
				if m.Outcome != "reexecuted" && m.Outcome != "healthy" {
					b.Errorf("%s: %s (%s)", m.Path, m.Outcome, m.Reason)
				}
			}
			reexecuted.add(result.Took)
			bare.add(reexecute(b, restored.PID))
			end(b, restored)
		}
		fmt.Printf("%d automounts: reexecuted %s ms, bare %s ms, ratio %.2f\n", size, reexecuted, bare, quotient(reexecuted, bare))
	}
}

// reexecute makes systemd re-execute itself and waits until it listens again.
func reexecute(b testing.TB, pid int) time.Duration {
	b.Helper()
	before := privateSocket(b, pid)
	begin := time.Now()
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		b.Fatal(err)
	}
	for time.Since(begin) < 5*time.Second {
		if now := privateSocket(b, pid); now != "" && now != before {
			return time.Since(begin)
		}
		time.Sleep(200 * time.Microsecond)
	}
	b.Fatalf("systemd does not listen again; its socket is %q as before", before)
	return 0
}

// privateSocket is the inode number of the socket that systemd listens on.
func privateSocket(b testing.TB, pid int) string {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/unix", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 8 && f[7] == "/run/systemd/private" && f[3] == "00010000" {
			return f[6]
		}
	}
	return ""
}

// BenchmarkMemory measures the peak memory of the program's processes.
func BenchmarkMemory(b *testing.B) {
	lab.RequireNode(b)
	widenSockets(b)
	info, err := os.Stat(lab.Hook())
	if err != nil {
		b.Fatal(err)
	}
	fmt.Printf("\n%s\nbinary: %d bytes\n", machine(), info.Size())
	for _, size := range []int{4, 500} {
		checkpoint := checkpointOf(b, size)
		// strace delays its end, so that its status can be read.
		lab.InstallWrappedScript(b, "strace -DDD -f -qq -o /dev/null -e trace=exit_group -e inject=exit_group:delay_enter=30000 "+lab.Hook(), "")
		var most atomic.Int64
		done := make(chan struct{})
		go func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(2 * time.Millisecond):
					most.Store(max(most.Load(), peak()))
				}
			}
		}()
		restored := checkpoint.Restore(b, lab.RestoreOptions{})
		close(done)
		preserved(b, restored.ReadReport(b), size)
		end(b, restored)
		fmt.Printf("%d automounts: at most %.1f MiB (VmHWM)\n", size, float64(most.Load())/1024)
	}
}

// peak returns the largest VmHWM of the program's processes, in KiB.
func peak() int64 {
	var most int64
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, link := range links {
		if exe, err := os.Readlink(link); err != nil || exe != lab.Hook() {
			continue
		}
		text, _ := os.ReadFile(filepath.Join(filepath.Dir(link), "status"))
		_, rest, _ := strings.Cut(string(text), "VmHWM:")
		if fields := strings.Fields(rest); len(fields) > 0 {
			if n, err := strconv.ParseInt(fields[0], 10, 64); err == nil {
				most = max(most, n)
			}
		}
	}
	return most
}
