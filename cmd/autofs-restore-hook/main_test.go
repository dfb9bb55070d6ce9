package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// patience bounds how long a run of the program may take.
const patience = 5 * time.Second

// binary is the program, built as make does it.
var binary string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "autofs-restore-hook-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "autofs-restore-hook")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-X main.versionNumber=v1-test", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// call is one run of the program.
type call struct {
	env   []string
	stdin *string // nil for /dev/null
	args  []string
}

// result is what came of it.
type result struct {
	status      int
	out, errors string
}

func (c call) run(t *testing.T) result { return c.with(t, binary, c.args...) }

// with runs a program with the call's environment and input.
func (c call) with(t *testing.T, program string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, c.env...)
	if c.stdin != nil {
		cmd.Stdin = strings.NewReader(*c.stdin)
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &errs, patience
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("%q: %v, %v\n%s%s", args, err, ctx.Err(), &out, &errs)
	}
	return result{status: cmd.ProcessState.ExitCode(), out: out.String(), errors: errs.String()}
}

// expect compares a result: out and errs are parts of what is written, "" for
// nothing at all.
func (r result) expect(t *testing.T, name string, status int, out, errs string) {
	t.Helper()
	differs := func(got, want string) bool { return (got == "") != (want == "") || !strings.Contains(got, want) }
	if r.status != status || differs(r.out, out) || differs(r.errors, errs) {
		t.Errorf("%s: exit status %d, want %d\nstdout, want %q:\n%s\nstderr, want %q:\n%s", name, r.status, status, out, r.out, errs, r.errors)
	}
}

func require(t *testing.T, ok bool, what string) {
	t.Helper()
	switch {
	case ok:
	case os.Getenv("REQUIRE") == "1":
		t.Fatalf("required: %s", what)
	default:
		t.Skipf("skipped: needs %s", what)
	}
}
