package testenv

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// StatusField returns a field of /proc/<pid>/status.
func StatusField(t testing.TB, pid int, name string) string {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("no %s in the status of process %d", name, pid)
	return ""
}

// CheckUntraced checks that a process is neither traced nor stopped, and that it has
// no signal pending.
func CheckUntraced(t testing.TB, pid int) {
	t.Helper()
	if tracer := StatusField(t, pid, "TracerPid"); tracer != "0" {
		t.Errorf("process %d is traced by %s", pid, tracer)
	}
	Eventually(t, "the process is not stopped", func() bool {
		return !strings.ContainsAny(StatusField(t, pid, "State")[:1], "tT")
	})
	for _, name := range []string{"SigPnd", "ShdPnd"} {
		if pending := strings.Trim(StatusField(t, pid, name), "0"); pending != "" {
			t.Errorf("process %d: %s %s", pid, name, pending)
		}
	}
}

// OnThread runs a function in a thread that ends with it, as ptrace(2) wants it.
func OnThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		f()
	}()
	<-done
}
