package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// kernelEvent is a line of the kernel's trace (Documentation/trace/ftrace.rst).
type kernelEvent struct {
	task int // in the first pid namespace
	at   time.Duration
	name string // "sys_openat" at the start of a call, "sys_openat -> 0x3" at its end
	text string
}

// recorded are the events of the kernel that a timeline needs.
var recorded = []string{"syscalls", "sched/sched_process_fork", "sched/sched_process_exec", "sched/sched_process_exit", "sched/sched_switch"}

// record returns what all processes of the machine do while f runs. The kernel writes it
// to memory, 0.3 µs an event: strace takes a hundred times as long.
func record(b testing.TB, f func()) []kernelEvent {
	b.Helper()
	dir := b.TempDir()
	if err := unix.Mount("tracefs", dir, "tracefs", 0, ""); err != nil {
		b.Fatalf("tracefs: %v", err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	instance := filepath.Join(dir, "instances", "autofs-restore-hook")
	if err := os.Mkdir(instance, 0o700); err != nil {
		b.Fatal(err)
	}
	defer os.Remove(instance)
	set := func(name, value string) {
		if err := os.WriteFile(filepath.Join(instance, name), []byte(value), 0); err != nil {
			b.Fatal(err)
		}
	}
	set("buffer_size_kb", "32768") // for each processor
	for _, name := range recorded {
		set("events/"+name+"/enable", "1")
	}
	f()
	set("tracing_on", "0")
	text, err := os.ReadFile(filepath.Join(instance, "trace"))
	if err != nil {
		b.Fatal(err)
	}
	if keep := os.Getenv("BENCH_TRACES"); keep != "" {
		if err := os.WriteFile(filepath.Join(keep, fmt.Sprintf("kernel-%d", time.Now().UnixNano())), text, 0o600); err != nil {
			b.Error(err)
		}
	}
	return parseEvents(string(text))
}

var eventLine = regexp.MustCompile(`^ *.{1,16}-(\d+) +\[\d+\] \S+ +(\d+)\.(\d{6}): (\w+(?: -> \S+)?)(.*)$`)

func parseEvents(text string) []kernelEvent {
	var list []kernelEvent
	for line := range strings.Lines(text) {
		m := eventLine.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil {
			continue
		}
		task, _ := strconv.Atoi(m[1])
		seconds, _ := strconv.Atoi(m[2])
		micros, _ := strconv.Atoi(m[3])
		list = append(list, kernelEvent{task, time.Duration(seconds)*time.Second + time.Duration(micros)*time.Microsecond, m[4], m[5]})
	}
	return list
}
