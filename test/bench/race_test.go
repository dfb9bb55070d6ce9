package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// contestant is a command that is measured against others.
type contestant struct {
	name string
	make func() *exec.Cmd
}

// cost is the cost of runs of one command.
type cost struct {
	name      string
	wall, cpu series
	faults    int64 // of the last run
	calls     int   // 0 if not counted
}

// race runs the commands in turn, repeatedly, so that other load on the machine affects
// all of them alike.
func race(b testing.TB, rounds int, contestants []contestant) []cost {
	b.Helper()
	costs := make([]cost, len(contestants))
	for range rounds {
		for i, c := range contestants {
			costs[i].name = c.name
			costs[i].run(b, c.make())
		}
	}
	return costs
}

func (c *cost) run(b testing.TB, cmd *exec.Cmd) {
	b.Helper()
	begin := time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(begin)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		b.Fatalf("%s: %v\n%s", c.name, err, out)
	}
	c.wall.add(took)
	c.cpu.add(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime())
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		c.faults = usage.Minflt
	}
}

// count counts a command's system calls, including those of its children.
func count(b testing.TB, cmd *exec.Cmd) int {
	b.Helper()
	text := []byte(trace(b, cmd))
	return bytes.Count(text, []byte("\n")) - bytes.Count(text, []byte(" resumed>")) - bytes.Count(text, []byte("+++ ")) -
		bytes.Count(text, []byte("--- "))
}

// trace runs a command under strace, with its children.
func trace(b testing.TB, cmd *exec.Cmd) string {
	b.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		b.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "count")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	log := filepath.Join(dir, "log")
	traced := exec.Command(strace, append([]string{"-f", "-qq", "-o", log}, cmd.Args...)...)
	traced.Env, traced.Stdin = cmd.Env, cmd.Stdin
	if out, err := traced.CombinedOutput(); err != nil && traced.ProcessState == nil {
		b.Fatalf("strace: %v\n%s", err, out)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		b.Fatal(err)
	}
	return string(text)
}

func microseconds(s series) string {
	return fmt.Sprintf("%.0f", float64(s.median().Nanoseconds())/1000)
}

// tool returns a program that `make bench` builds beside the product.
func tool(b testing.TB, name string) string {
	b.Helper()
	path := filepath.Join(lab.Checkout(), "bin", name)
	_, err := os.Stat(path)
	lab.Require(b, err == nil, fmt.Sprintf("%s is not built: run it by `make bench` (bench-lean needs a C compiler)", path))
	return path
}

// withEnv returns a command with only these environment variables.
func withEnv(path string, args []string, stdin string, env ...string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, env...)
	if stdin != "" {
		cmd.Stdin = strings.NewReader(stdin)
	}
	return cmd
}
