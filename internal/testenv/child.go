package testenv

import (
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Child is a process that a test examines, enters, stops or kills. It is killed at the end
// of the test. One that reads its standard input to the end also ends if the tests are
// killed.
type Child struct {
	// Cmd has been started. End waits for it, unless the test does.
	Cmd *exec.Cmd
	// Input is the only writing end of the pipe that is the child's standard input.
	Input *os.File
}

// Start starts cat, which does nothing until its standard input ends. attr may
// be nil.
func Start(t testing.TB, attr *syscall.SysProcAttr) *Child {
	t.Helper()
	return StartCommand(t, attr, "cat")
}

// StartInNamespaces is Start with new namespaces, as named by flags of clone(2).
// Their mounts do not propagate to those of the tests. It needs root.
func StartInNamespaces(t testing.TB, flags uintptr) *Child {
	t.Helper()
	RequireRoot(t)
	return Start(t, &syscall.SysProcAttr{
		Cloneflags:   flags &^ unix.CLONE_NEWNS,
		Unshareflags: flags & unix.CLONE_NEWNS, // os/exec makes the mounts private
	})
}

// StartCommand starts another program than cat: args are its name or path, and its
// arguments.
func StartCommand(t testing.TB, attr *syscall.SysProcAttr, args ...string) *Child {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.SysProcAttr = attr
	return StartPrepared(t, cmd)
}

// StartPrepared starts a command whose fields the test has set, except Stdin. When it
// returns, /proc shows the name and arguments of the program.
func StartPrepared(t testing.TB, cmd *exec.Cmd) *Child {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	c := &Child{Cmd: cmd, Input: write}
	cmd.Stdin = read
	if err := cmd.Start(); err != nil {
		write.Close()
		t.Fatal(err)
	}
	t.Cleanup(c.End)
	WaitExecuted(t, c.PID())
	return c
}

// PID is the child's number in the pid namespace of the tests.
func (c *Child) PID() int { return c.Cmd.Process.Pid }

// End kills and reaps the child. It may be called more than once.
func (c *Child) End() {
	_ = c.Cmd.Process.Kill()
	_ = c.Cmd.Wait()
	c.Input.Close()
}

// Open returns the child as open gives it, closed with the test. open is
// nsenter.Open: nsenter's own tests import this package, which therefore cannot
// import nsenter.
func Open[Process io.Closer](t testing.TB, c *Child, open func(pid int) (Process, error)) Process {
	t.Helper()
	p, err := open(c.PID())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}
