package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// own are calls that differ from run to run: the threads of the Go runtime, and
// their waiting.
var own = regexp.MustCompile(`^(futex|nanosleep|sched_yield|mmap|munmap|madvise|clone3?|sigaltstack|gettid|rt_sig[a-z]*|getpid|tgkill|epoll_pwait)$`)

// calls counts a program's system calls by name, but for those.
func calls(t *testing.T, c call, program string) map[string]int {
	t.Helper()
	strace, err := exec.LookPath("strace")
	require(t, err == nil, "strace")
	log := filepath.Join(t.TempDir(), "log")
	if r := (call{}).with(t, strace, "-o", log, "/bin/true"); r.status != 0 {
		require(t, false, "a strace that works: "+r.errors)
	}
	c.with(t, strace, append([]string{"-f", "-o", log, program}, c.args...)...)
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	counted := map[string]int{}
	for _, m := range regexp.MustCompile(`(?m)^\d+ +([a-z0-9_]+)\(`).FindAllStringSubmatch(string(data), -1) {
		if !own.MatchString(m[1]) {
			counted[m[1]]++
		}
	}
	if counted["execve"] != 1 {
		t.Fatalf("the trace of %s:\n%s", program, data)
	}
	return counted
}

// moreCalls is how many system calls a call without work may have beyond an empty Go
// program: the limit of open files, its input, and the journal's socket.
const moreCalls = 15

// TestBudget compares calls without work with a Go program that does nothing.
func TestBudget(t *testing.T) {
	dir := t.TempDir()
	source, empty := filepath.Join(dir, "main.go"), filepath.Join(dir, "empty")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", empty, source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	sum := func(counted map[string]int) (n int) {
		for _, c := range counted {
			n += c
		}
		return n
	}
	nothing := sum(calls(t, call{}, empty))
	for name, c := range map[string]call{
		"foreign action": {env: []string{"CRTOOLS_SCRIPT_ACTION=network-lock"}},
		"fresh start":    {args: []string{"createRuntime"}, stdin: state("creating", "42")},
	} {
		counted := calls(t, c, binary)
		t.Logf("%s: %d system calls beside the runtime's threads, an empty Go program has %d", name, sum(counted), nothing)
		if sum(counted) > nothing+moreCalls {
			t.Errorf("%s: %d system calls, an empty Go program has %d: %v", name, sum(counted), nothing, counted)
		}
	}
}
