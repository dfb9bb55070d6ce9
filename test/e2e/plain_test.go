package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestContainerWithoutAutofs traces the program on a systemd container without
// automounts: it may not enter a namespace, connect to systemd or start a process.
func TestContainerWithoutAutofs(t *testing.T) {
	requireHook(t)
	s := take(t, lab.Options{Plain: true})
	traces := lab.Scratch(t, "traces")
	script := filepath.Join(traces, "script")
	text := fmt.Sprintf(`#!/bin/sh
%sstrace --follow-forks --output=%s/"$CRTOOLS_SCRIPT_ACTION" %s
echo $? >%s/"$CRTOOLS_SCRIPT_ACTION".status
`, s.GroupsShell(), traces, lab.Hook(), traces)
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	lab.InstallActionScript(t, script)
	s.Restore(t, lab.RestoreOptions{})

	for _, action := range []string{"pre-restore", "post-setup-namespaces", "pre-resume", "post-resume"} {
		trace, err := os.ReadFile(filepath.Join(traces, action))
		if err != nil {
			t.Fatalf("no trace of the program at %s: %v", action, err)
		}
		if !strings.Contains(string(trace), "+++ exited with 0 +++") {
			t.Errorf("%s: the program did not exit with 0:\n%s", action, trace)
		}
		for line := range strings.Lines(string(trace)) {
			if forbidden(line) {
				t.Errorf("%s: %s", action, line)
			}
		}
	}
}

// forbidden reports whether a system call must not be made for a container without
// autofs.
func forbidden(line string) bool {
	switch {
	case strings.Contains(line, " setns("), strings.Contains(line, "fork("):
		return true
	case strings.Contains(line, " connect("):
		return strings.Contains(line, "systemd/private")
	case strings.Contains(line, " clone("), strings.Contains(line, " clone3("):
		return !strings.Contains(line, "CLONE_THREAD")
	}
	return false
}

// TestFreshStart starts a container with the program as its OCI hooks: at a fresh start
// there is nothing to do.
func TestFreshStart(t *testing.T) {
	requireHook(t)
	hook := func(stage string) []specs.Hook {
		return []specs.Hook{{Path: lab.Hook(), Args: []string{"autofs-restore-hook", stage}}}
	}
	c := lab.Start(t, lab.Options{Hooks: &specs.Hooks{
		CreateRuntime: hook("createRuntime"), Poststart: hook("poststart"), Poststop: hook("poststop"),
	}})
	report := filepath.Join("/run/autofs-restore-hook/reports", c.ID+".json")
	if _, err := os.Stat(report); err == nil {
		t.Errorf("a fresh start left a report: %s", report)
	}
	if stack := lab.Stack(t, c.PID, lab.Idle); stack != "autofs" {
		t.Errorf("%s: %s, want autofs", lab.Idle, stack)
	}
}
