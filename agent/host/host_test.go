package host

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/cgroup"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

func shell(t *testing.T) *Program {
	t.Helper()
	testenv.RequireRoot(t)
	init, err := nsenter.Open(1)
	if err != nil {
		t.Fatal(err)
	}
	defer init.Close()
	group, err := cgroup.Open(init)
	switch {
	case err == nil:
	case os.Getenv("REQUIRE") == "1":
		t.Fatalf("REQUIRE=1 and no control groups of version 2: %v", err)
	default:
		t.Skipf("no control groups of version 2: %v", err)
	}
	group.Close()
	p, err := Open("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func TestRun(t *testing.T) {
	p := shell(t)
	r, err := p.Run(t.Context(), "-c", "echo out; echo err >&2; env; exit 3")
	if err != nil || r.Status != 3 || !strings.HasPrefix(string(r.Stdout), "out\n") || r.Stderr != "err\n" {
		t.Errorf("%+v, %v", r, err)
	}
	// Nothing of our environment, which Kubernetes fills, goes along.
	t.Setenv("CRTOOLS_SCRIPT_ACTION", "post-resume")
	if r, err := p.Run(t.Context(), "-c", "env"); err != nil || strings.Contains(string(r.Stdout), "CRTOOLS") {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestFaults has programs that crash, hang, write without end, or leave a
// process behind.
func TestFaults(t *testing.T) {
	p := shell(t)
	if r, err := p.Run(t.Context(), "-c", "kill -SEGV $$"); err == nil || r.Status != -1 || !strings.Contains(err.Error(), "segmentation") {
		t.Errorf("a crash: %+v, %v", r, err)
	}
	why := errors.New("not finished within 100 ms")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, why)
	defer cancel()
	began := time.Now()
	if r, err := p.Run(ctx, "-c", "sleep 60"); !errors.Is(err, why) || time.Since(began) > 5*time.Second {
		t.Errorf("a hang: %+v, %v, after %s", r, err, time.Since(began))
	}
	r, err := p.Run(t.Context(), "-c", "yes | head -c 20000000")
	if err != nil || len(r.Stdout) != maxOutput || !r.Truncated {
		t.Errorf("20 MB: %d bytes, truncated %v, %v", len(r.Stdout), r.Truncated, err)
	}
	began = time.Now()
	if r, err := p.Run(t.Context(), "-c", "sleep 30 & echo $!"); time.Since(began) > 10*time.Second {
		t.Errorf("a process that keeps the output: %+v, %v, after %s", r, err, time.Since(began))
	} else {
		_ = exec.Command("kill", "-9", strings.TrimSpace(string(r.Stdout))).Run()
	}
}

// TestHostsView: the program is in the control group of PID 1 and sees its
// files. What a pod sees instead is tested in test/agent.
func TestHostsView(t *testing.T) {
	p := shell(t)
	marker := filepath.Join(t.TempDir(), "marker")
	if err := os.WriteFile(marker, []byte("the host's"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := p.Run(t.Context(), "-c", "cat "+marker+"; cat /proc/1/cgroup; echo ---; cat /proc/self/cgroup")
	if err != nil || !strings.HasPrefix(string(r.Stdout), "the host's") {
		t.Fatalf("%+v, %v", r, err)
	}
	group := func(text string) string {
		for line := range strings.Lines(text) {
			if i := strings.Index(line, "0::"); i >= 0 {
				return line[i:]
			}
		}
		return ""
	}
	host, own, _ := strings.Cut(string(r.Stdout), "---\n")
	if group(host) == "" || group(host) != group(own) {
		t.Errorf("control group %q, the host's PID 1 is in %q", group(own), group(host))
	}
	if data, err := ReadFile(marker, 100); err != nil || string(data) != "the host's" {
		t.Errorf("%q, %v", data, err)
	}
	if data, err := ReadFile(marker, 5); err == nil {
		t.Errorf("%q, want an error: it is longer", data)
	}
	if _, err := ReadFile(marker+"2", 5); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestOpen(t *testing.T) {
	if _, err := Open("/nonexistent"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	p := shell(t)
	data, err := p.Content()
	want, _ := os.ReadFile("/bin/sh")
	if err != nil || len(data) == 0 || string(data) != string(want) {
		t.Errorf("%d bytes, %v, want %d", len(data), err, len(want))
	}
}
