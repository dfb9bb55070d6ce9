package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// initialized is the runtime's trace of the packages that became ready.
func initialized(t *testing.T, c call) string {
	t.Helper()
	c.env = append(c.env, "GODEBUG=inittrace=1")
	return c.run(t).errors
}

// TestFreshStartEndsEarly: so does a createRuntime hook at a fresh start, which
// the state alone tells, and only its own member "status".
func TestFreshStartEndsEarly(t *testing.T) {
	for name, test := range map[string]struct {
		state string
		early bool
	}{
		"creating":           {`{"status":"creating","pid":4}`, true},
		"blanks":             {"{\"status\" :\n\t\"creating\"\r\n}", true},
		"stopped":            {`{"status":"stopped"}`, false},
		"in an annotation":   {`{"status":"stopped","annotations":{"status":"creating"}}`, false},
		"as text":            {`{"status":"x","annotations":{"a":"\"status\":\"creating\""}}`, false},
		"another word":       {`{"status":"creatings"}`, false},
		"half a word":        {`{"status":"creat`, false},
		"as another's value": {`{"was":"creating","status":"x"}`, false},
		"nothing":            {``, false},
		"too long":           {`{"status":"creating","a":"` + strings.Repeat("x", 1<<16) + `"}`, false},
	} {
		trace := initialized(t, call{args: []string{"createRuntime"}, stdin: &test.state})
		if late := strings.Contains(trace, "init encoding/json @"); late == test.early || !strings.Contains(trace, "init os @") {
			t.Errorf("%s: ready to work: %v\n%s", name, late, trace)
		}
	}
}

// own are calls that differ from run to run: the threads of the Go runtime, and
// their waiting.
var own = regexp.MustCompile(`^(futex|nanosleep|sched_yield|mmap|munmap|madvise|clone3?|sigaltstack|gettid|rt_sig[a-z]*|getpid|tgkill)$`)

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

// What a call without work may do beyond an empty Go program.
const (
	moreCalls       = 10 // system calls: the limit of open files, and its input
	moreAllocations = 35
)

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
		allocations := 0
		for _, m := range regexp.MustCompile(`(?m)^init \S+ .* (\d+) allocs$`).FindAllStringSubmatch(initialized(t, c), -1) {
			n, err := strconv.Atoi(m[1])
			if err != nil {
				t.Fatal(err)
			}
			allocations += n
		}
		t.Logf("%s: %d system calls beside the runtime's threads, an empty Go program has %d; %d allocations", name, sum(counted), nothing, allocations)
		if sum(counted) > nothing+moreCalls {
			t.Errorf("%s: %d system calls, an empty Go program has %d: %v", name, sum(counted), nothing, counted)
		}
		if allocations == 0 || allocations > moreAllocations {
			t.Errorf("%s: %d allocations in the packages' init, at most %d are allowed", name, allocations, moreAllocations)
		}
	}
}
