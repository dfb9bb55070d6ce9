package lab

import (
	"os"
	"path/filepath"
	"testing"
)

// InstallWrappedScript makes the program the action script of every CRIU in the node
// until the test ends, behind shell commands that run before it at every stage
// ($CRTOOLS_SCRIPT_ACTION). The shell executes the program, whose parent is then CRIU.
func InstallWrappedScript(t testing.TB, program, shell string) {
	t.Helper()
	dir, err := os.MkdirTemp(Scratch(t, "scripts"), "script")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "script")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+shell+"exec "+program+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	InstallActionScript(t, path)
}
