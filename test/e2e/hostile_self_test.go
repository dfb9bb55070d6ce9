package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// withoutPtrace is a command prefix for a process in a container with all capabilities
// except CAP_SYS_PTRACE, which engines do not grant by default.
var withoutPtrace = []string{"setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-all", "--"}

// TestHostileSnoop has a process of the container try to open the program file and the
// memory of every process from outside, in a loop, during repairs (the class of
// CVE-2019-5736). It has all capabilities of the container.
func TestHostileSnoop(t *testing.T) {
	requireHook(t)
	s := take(t, lab.Options{Roles: true, Without: []string{"CAP_SYS_PTRACE"}})
	before := sum(t, lab.Hook())
	output := snoopRepairs(t, s, "closed autofs-restore", append(withoutPtrace, lab.RoleProgram, "snoop")...)
	if strings.Contains(output, "OPEN") || strings.Contains(output, "BUSY") {
		t.Errorf("processes of the program are open to the container:\n%s", output)
	}
	if !strings.Contains(output, "closed autofs-restore") {
		t.Errorf("no process of the program was seen, so the test proves nothing:\n%s", output)
	}
	if now := sum(t, lab.Hook()); now != before {
		t.Error("the program file changed")
	}
}

// TestHostileSnoopPtrace is the same with CAP_SYS_PTRACE, which allows opening every
// process of the pid namespace. Then the program is a sealed copy, which cannot be
// written, never the program file of the host.
func TestHostileSnoopPtrace(t *testing.T) {
	s := hostileCheckpoint(t)
	output := snoopRepairs(t, s, "EXE ", lab.RoleProgram, "snoop")
	var st unix.Stat_t
	if err := unix.Stat(lab.Hook(), &st); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(output, fmt.Sprintf("EXE %d:%d:", st.Dev, st.Ino)) {
		t.Errorf("the program file of the host can be reached from the container:\n%s", output)
	}
	if strings.Contains(output, "WRITE exe") {
		t.Errorf("a program file could be opened for writing:\n%s", output)
	}
	if !strings.Contains(output, "EXE ") {
		t.Errorf("no process of the program was seen, so the test proves nothing:\n%s", output)
	}
}

// snoopRepairs runs an attack during several repairs, each in a new container, since a
// repaired one has nothing to do, until the attack has seen the program. It returns the
// attack's output.
func snoopRepairs(t *testing.T, s *snapshot, seen string, attack ...string) string {
	t.Helper()
	var output strings.Builder
	strategies := [][]string{{"--strategy", "restart"}, {"--strategy", "auto"}}
	for n := range 10 {
		if n >= len(strategies) && strings.Contains(output.String(), seen) {
			break
		}
		options := strategies[n%len(strategies)]
		r := restoreStale(t, s)
		a := r.Attack(t, attack...)
		if _, report := runAttacked(t, r.PID, options...); report.Outcome == "nothing-to-do" {
			t.Errorf("%q: there was nothing to do, so the test proves nothing", options)
		}
		text := a.Stop(t, r.Container)
		t.Logf("%q: %s", options, text)
		output.WriteString(text)
		r.Kill(t)
	}
	return output.String()
}

func sum(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(info.Size(), info.ModTime(), readFile(t, path) == "")
}

// TestHostileEnvironment calls the program with an environment that makes other programs
// execute files of the container (the class of CVE-2025-23266). None is executed, and no
// process of the program passes the environment on.
func TestHostileEnvironment(t *testing.T) {
	s := hostileCheckpoint(t)
	dir := t.TempDir()
	canary := filepath.Join(dir, "canary")
	for _, name := range []string{"sh", "mount", "umount", "systemctl", "criu", "runc", "nsenter", "automount", "modprobe"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho "+name+" >>"+canary+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "evil.so"), []byte("\x7fELF not at all"), 0o755); err != nil {
		t.Fatal(err)
	}
	node := readNode(t)
	seen := watchHelpers()
	env := []string{
		"LD_PRELOAD=" + dir + "/evil.so", "LD_LIBRARY_PATH=" + dir, "LD_AUDIT=" + dir + "/evil.so", "PATH=" + dir,
		"GODEBUG=gctrace=0,madvdontneed=1", "GOTRACEBACK=crash", "GOGC=off", "DBUS_SYSTEM_BUS_ADDRESS=unix:path=" + dir + "/bus",
		"DBUS_SESSION_BUS_ADDRESS=unixexec:path=" + dir + "/sh", "TMPDIR=/proc/1/root/tmp", "BASH_ENV=" + dir + "/sh", "HOSTILE=1",
	}
	var r *lab.Restored
	for n := 0; n == 0 || n < 5 && !seen.any(); n++ { // they live for a short time
		if r != nil {
			r.Kill(t)
		}
		r = restoreStale(t, s)
		for _, strategy := range []string{"restart", "auto"} {
			result := lab.RunHook(t, nil, env, "repair", strconv.Itoa(r.PID), "--json", "--strategy", strategy)
			if result.Status != 0 {
				t.Errorf("exit status %d: %s", result.Status, result.Stderr)
			}
			checkLog(t, result.Stderr)
		}
	}
	helpers, passed := seen.end()
	t.Logf("processes of the program: %q", helpers)
	if len(helpers) == 0 {
		t.Error("no other process of the program was seen, so the test proves nothing")
	}
	if len(passed) > 0 {
		t.Errorf("the environment was passed on: %q", passed)
	}
	if exists(canary) {
		t.Errorf("programs were run: %s", readFile(t, canary))
	}
	r.CheckAnswers(t, lab.Accesses)
	node.checkUnchanged(t)
}

// helperWatch looks for processes that the program starts, and for those that have its
// environment.
type helperWatch struct {
	stop, done  chan struct{}
	mu          sync.Mutex
	found, with map[string]bool
}

func (w *helperWatch) any() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.found) > 0
}

func (w *helperWatch) end() (helpers, passed []string) {
	close(w.stop)
	<-w.done
	return keys(w.found), keys(w.with)
}

func watchHelpers() *helperWatch {
	w := &helperWatch{stop: make(chan struct{}), done: make(chan struct{}), found: map[string]bool{}, with: map[string]bool{}}
	go func() {
		defer close(w.done)
		for {
			select {
			case <-w.stop:
				return
			case <-time.After(200 * time.Microsecond):
			}
			for _, line := range lab.Running() {
				pid, command, _ := strings.Cut(line, " ")
				if strings.Contains(command, " repair ") || command == "" {
					continue
				}
				_, verb, _ := strings.Cut(command, " ")
				verb, _, _ = strings.Cut(verb, " ")
				w.mu.Lock()
				w.found[verb] = true
				if environ, err := os.ReadFile("/proc/" + pid + "/environ"); err == nil && strings.Contains(string(environ), "HOSTILE") {
					w.with[verb] = true
				}
				w.mu.Unlock()
			}
		}
	}()
	return w
}

func keys(set map[string]bool) []string {
	var list []string
	for key := range set {
		list = append(list, key)
	}
	return list
}
