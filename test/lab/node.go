package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
)

// Require skips the test with a reason when a condition is not met, or fails it
// when REQUIRE=1 is in the environment, as continuous integration sets it: there
// a check that did not run must not look like one that passed.
func Require(t testing.TB, condition bool, reason string) {
	t.Helper()
	switch {
	case condition:
	case os.Getenv("REQUIRE") == "1":
		t.Fatalf("REQUIRE=1 and %s", reason)
	default:
		t.Skip(reason)
	}
}

// RequireNode skips or fails a test that does not run inside the node.
func RequireNode(t testing.TB) {
	t.Helper()
	Require(t, os.Getenv("LAB_ID") != "",
		"this is not the laboratory's node: run `make test-e2e`, or go test -exec test/node/enter")
}

// Checkout is the root folder of the repository.
func Checkout() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// Hook returns the program under test: HOOK from the environment, else the result of
// `make build`.
func Hook() string {
	if hook := os.Getenv("HOOK"); hook != "" {
		return hook
	}
	return filepath.Join(Checkout(), "bin", "autofs-restore-hook")
}

// Scratch makes a folder on a disk file system. It lives as long as the node,
// not only as long as the test: a checkpoint may be shared between tests.
func Scratch(t testing.TB, name string) string {
	t.Helper()
	dir := filepath.Join(os.Getenv("LAB_SCRATCH"), "container", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

var containers atomic.Int32

// newID returns a container name that no other container of any node has.
func newID() string {
	return fmt.Sprintf("%s-%d", os.Getenv("LAB_ID"), containers.Add(1))
}

// criuConfig is the file that every CRIU reads.
const criuConfig = "/etc/criu/default.conf"

// appendConfig adds a line to it. undo removes the line.
func appendConfig(line string) (undo func(), err error) {
	before, err := os.ReadFile(criuConfig)
	absent := errors.Is(err, fs.ErrNotExist)
	if err != nil && !absent {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(criuConfig), 0o755); err != nil {
		return nil, err
	}
	undo = func() {
		if absent {
			os.Remove(criuConfig)
		} else {
			_ = os.WriteFile(criuConfig, before, 0o644)
		}
	}
	return undo, os.WriteFile(criuConfig, append(before, line+"\n"...), 0o644)
}

// InstallActionScript makes a program the action script of every CRIU in the
// node until the test ends, with further lines of its configuration. An empty path
// means none.
func InstallActionScript(t testing.TB, path string, lines ...string) {
	t.Helper()
	t.Cleanup(func() { os.Remove(criuConfig) })
	if path != "" {
		lines = append(lines, "action-script "+path)
	}
	if len(lines) == 0 {
		os.Remove(criuConfig)
		return
	}
	if strings.ContainsAny(path, "# \t\n\"") {
		t.Fatalf("action script %q: CRIU's configuration cannot name a path with blanks, # or quotes", path)
	}
	if err := os.MkdirAll(filepath.Dir(criuConfig), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(criuConfig, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}
