package master

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// patience bounds how long a test waits for what must happen.
const patience = 5 * time.Second

func TestMain(m *testing.M) {
	testenv.Main(m)
}

func requireRoot(t testing.TB) {
	t.Helper()
	testenv.RequireRoot(t)
}

// child is a process that sleeps until the test ends it.
type child struct {
	cmd  *exec.Cmd
	life *os.File
}

// start runs cat, which ends when its standard input does: no child outlives
// the test, whatever happens.
func start(t testing.TB, attr *syscall.SysProcAttr) *child {
	t.Helper()
	return startCommand(t, attr, "cat")
}

func startCommand(t testing.TB, attr *syscall.SysProcAttr, args ...string) *child {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	c := &child{cmd: exec.Command(args[0], args[1:]...), life: write}
	c.cmd.Stdin, c.cmd.SysProcAttr = read, attr
	if err := c.cmd.Start(); err != nil {
		write.Close()
		t.Fatal(err)
	}
	t.Cleanup(c.end)
	testenv.WaitExecuted(t, c.cmd.Process.Pid)
	return c
}

// end kills and reaps the child. It may be called more than once.
func (c *child) end() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
	c.life.Close()
}

func (c *child) open(t testing.TB) *nsenter.Process {
	t.Helper()
	p, err := nsenter.Open(c.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if condition() {
			return
		}
	}
	t.Fatalf("not within %v: %s", patience, what)
}
