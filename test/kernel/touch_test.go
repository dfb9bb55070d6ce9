//go:build linux

package kernel

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// runTouch opens one file, which triggers a mount, and exits with the errno.
func runTouch(args []string) error {
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	return f.Close()
}

// toucher is a process that opens a path on an autofs.
type toucher struct {
	cmd  *exec.Cmd
	done chan struct{}
}

func touch(t *testing.T, path string) *toucher {
	t.Helper()
	p := &toucher{cmd: child(t, "touch", path), done: make(chan struct{})}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		killGroup(p.cmd)
		select {
		case <-p.done:
		case <-time.After(patience):
			t.Errorf("process %d survives SIGKILL", p.cmd.Process.Pid)
		}
	})
	return p
}

// result returns the errno of the process, 0 for success.
func (p *toucher) result(t *testing.T) unix.Errno {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatalf("the access hangs: %s", p.where())
	}
	code := p.cmd.ProcessState.ExitCode()
	if code < 0 || code >= 90 {
		t.Fatalf("the access ended with %v", p.cmd.ProcessState)
	}
	return unix.Errno(code)
}

func (p *toucher) expect(t *testing.T, want unix.Errno) {
	t.Helper()
	if got := p.result(t); got != want {
		t.Errorf("the access ended with %v, not %v", error(got), error(want))
	}
}

// hangs waits until the process is blocked in the kernel's autofs_wait.
func (p *toucher) hangs(t *testing.T) {
	t.Helper()
	eventually(t, "a process in autofs_wait", func() bool {
		select {
		case <-p.done:
			t.Fatalf("the access does not hang, it ended with %v", p.cmd.ProcessState)
		default:
		}
		return strings.Contains(p.where(), "autofs_wait")
	})
}

// where returns the kernel function in which each thread sleeps.
func (p *toucher) where() string {
	all, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/wchan", p.cmd.Process.Pid))
	var where []string
	for _, name := range all {
		wchan, _ := os.ReadFile(name)
		where = append(where, string(wchan))
	}
	return strings.Join(where, " ")
}
