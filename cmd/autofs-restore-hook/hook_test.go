package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// state is what a runtime writes on a hook's standard input.
func state(status, pid string) *string {
	text := `{"ociVersion":"1.2.0","id":"c1","status":"` + status + `","pid":` + pid + `,"bundle":"/b"}`
	return &text
}

func text(s string) *string { return &s }

// foreign are the actions of CRIU at which there is nothing to do.
var foreign = []string{
	"pre-dump", "post-dump", "pre-stream", "network-lock", "network-unlock", "setup-namespaces",
	"post-restore", "orphan-pts-master", "query-ext-files", "status-ready", "unknown",
}

func TestForeignAction(t *testing.T) {
	for _, action := range foreign {
		call{env: []string{"CRTOOLS_SCRIPT_ACTION=" + action, "CRTOOLS_INIT_PID=1"}}.run(t).expect(t, action, 0, "", "")
	}
}

// TestForeignActionIsLight: nothing but the start of the Go runtime.
func TestForeignActionIsLight(t *testing.T) {
	strace, err := exec.LookPath("strace")
	require(t, err == nil, "strace")
	log := filepath.Join(t.TempDir(), "log")
	// Does it work here at all?
	if r := (call{}).with(t, strace, "-o", log, "/bin/true"); r.status != 0 {
		require(t, false, "a strace that works: "+r.errors)
	}
	c := call{env: []string{"CRTOOLS_SCRIPT_ACTION=post-dump"}}
	c.with(t, strace, "-f", "-o", log, binary).expect(t, "traced", 0, "", "")
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	for line := range strings.Lines(string(data)) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		name, _, isCall := strings.Cut(strings.TrimSpace(rest), "(")
		if !isCall {
			continue // a signal, an end, or the second half of a call
		}
		calls++
		thread := strings.Contains(line, "CLONE_THREAD")
		switch {
		case name == "execve" && calls == 1:
		case name == "execve", name == "fork", name == "vfork", (name == "clone" || name == "clone3") && !thread:
			t.Errorf("a child: %s", line)
		case name == "socket", name == "connect", name == "mount", name == "ptrace", name == "setns", name == "unshare":
			t.Errorf("work: %s", line)
		case strings.HasPrefix(name, "write"), strings.Contains(name, "open") && !fromRuntime(line):
			t.Errorf("a file: %s", line)
		}
	}
	t.Logf("%d system calls", calls)
	if calls == 0 || calls > 350 {
		t.Errorf("%d system calls:\n%s", calls, data)
	}
}

// fromRuntime recognises the files that every Go program opens, and the program
// itself, which protobuf's internal/detrand reads in its init.
func fromRuntime(line string) bool {
	return strings.Contains(line, `"/sys/`) || strings.Contains(line, `"/proc/self/`) || strings.Contains(line, `"`+binary+`"`)
}

// TestOurAction: what CRIU says is wrong is logged; the restore goes on.
func TestOurAction(t *testing.T) {
	for name, test := range map[string]struct{ action, pid, errs string }{
		"no process":     {"post-resume", "", "CRTOOLS_INIT_PID"},
		"process 0":      {"pre-resume", "0", "CRTOOLS_INIT_PID"},
		"no number":      {"pre-resume", "1\nlevel=info", "CRTOOLS_INIT_PID"},
		"no such":        {"post-resume", noProcess, "no such process"},
		"no such, early": {"pre-resume", noProcess, "no such process"},
	} {
		r := call{env: []string{"CRTOOLS_SCRIPT_ACTION=" + test.action, "CRTOOLS_INIT_PID=" + test.pid}}.run(t)
		r.expect(t, name, 0, "", test.errs)
		if strings.Contains(r.errors, "\nlevel=info\n") || strings.Contains(r.errors, "\nlevel=info\"") {
			t.Errorf("%s: a forged line:\n%s", name, r.errors)
		}
	}
	// With arguments it is a command, in any environment.
	call{env: []string{"CRTOOLS_SCRIPT_ACTION=post-resume"}, args: []string{"version"}}.run(t).expect(t, "a command", 0, "v1-test", "")
	call{env: []string{"CRTOOLS_SCRIPT_ACTION="}}.run(t).expect(t, "empty", 2, "", firstLine)
}

func TestStages(t *testing.T) {
	for name, test := range map[string]struct {
		stage string
		stdin *string
		errs  string
	}{
		"a fresh start":        {"createRuntime", state("creating", "42"), ""},
		"a fresh start, no id": {"createRuntime", text(`{"status":"creating"}`), ""},
		"stopped, no process":  {"createRuntime", state("stopped", "0"), ""},
		"not ours, prestart":   {"prestart", state("stopped", "42"), ""},
		"not ours, container":  {"createContainer", state("stopped", "42"), ""},
		"not ours, start":      {"startContainer", state("created", "42"), ""},
		"not ours, the end":    {"poststop", state("stopped", "0"), ""},
		"a restore, too late":  {"createRuntime", state("stopped", noProcess), "no such process"},
		"poststart, too late":  {"poststart", state("running", noProcess), "no such process"},
		"poststart, no pid":    {"poststart", state("running", "0"), "want the number"},
		"no state":             {"createRuntime", text(""), "it is empty"},
		"no JSON":              {"poststart", text("state"), "not the JSON"},
		"no input":             {"poststart", nil, "it is empty"},
		// Words that a newer specification might bring.
		"unknown stage": {"preResume", state("running", "42"), "does not know"},
	} {
		call{stdin: test.stdin, args: []string{test.stage}}.run(t).expect(t, name, 0, "", test.errs)
	}
	for name, stdin := range map[string]*string{"nothing": nil, "empty": text(""), "no state": text("{}"), "no JSON": text("fix it")} {
		call{stdin: stdin, args: []string{"preResume"}}.run(t).expect(t, name, 2, "", `unknown command "preResume"`)
	}
}

// TestStrict: the administrator's choice, in a mount namespace with another /etc.
func TestStrict(t *testing.T) {
	require(t, os.Geteuid() == 0, "root")
	const inside = `mount -t tmpfs etc /etc && printf %s "$1" > /etc/autofs-restore-hook.conf && shift && exec "$@"`
	action := func(name, pid string) []string {
		return []string{"CRTOOLS_SCRIPT_ACTION=" + name, "CRTOOLS_INIT_PID=" + pid}
	}
	for name, test := range map[string]struct {
		config string
		call   call
		status int
		errs   string
	}{
		"strict, action":     {"strict = true", call{env: action("post-resume", "")}, 1, "CRTOOLS_INIT_PID"},
		"strict, no process": {"strict = true", call{env: action("post-resume", noProcess)}, 1, "no such process"},
		"strict, foreign":    {"strict = true", call{env: action("post-dump", "")}, 0, ""},
		"strict, stage":      {"strict = true", call{stdin: text("x"), args: []string{"createRuntime"}}, 2, "not the JSON"},
		"strict, fresh":      {"strict = true", call{stdin: state("creating", "42"), args: []string{"createRuntime"}}, 0, ""},
		"strict, unknown":    {"strict = true", call{stdin: state("creating", "42"), args: []string{"preResume"}}, 0, "does not know"},
		"lenient":            {"strict = false", call{env: action("post-resume", "")}, 0, "CRTOOLS_INIT_PID"},
		"empty":              {"# nothing", call{env: action("post-resume", "")}, 0, "CRTOOLS_INIT_PID"},
		"broken":             {"strict", call{env: action("post-resume", "")}, 0, "want true or false"},
	} {
		args := append([]string{"--mount", "sh", "-c", inside, "sh", test.config, binary}, test.call.args...)
		test.call.with(t, "unshare", args...).expect(t, name, test.status, "", test.errs)
	}
}
