package container

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// TestReplaceProcess: the process of a mount namespace ends while others are in the
// namespace, as when the first process of a service forks; then these end too.
func TestReplaceProcess(t *testing.T) {
	testenv.RequireRoot(t)
	cmd := exec.Command("unshare", "--mount", "sh", "-c", `unshare --mount sh -c 'sleep 60 & sleep 60 & echo ready; wait' & wait; cat`)
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	child := testenv.StartPrepared(t, cmd)
	if _, err := bufio.NewReader(output).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	init := testproc.Open(t, child)
	c, err := Open(init, false)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if len(c.Spaces) != 2 {
		t.Fatalf("%d mount namespaces, want 2", len(c.Spaces))
	}
	inside := processesIn(t, c, c.Spaces[1].ID)
	if len(inside) < 3 {
		t.Fatalf("%d processes in the second one, want 3", len(inside))
	}
	end := func(p *nsenter.Process) {
		t.Helper()
		if err := p.Signal(9); err != nil {
			t.Fatal(err)
		}
		if err := p.WaitEnd(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.ReadTables(); err != nil {
		t.Fatal(err)
	}
	before := c.Spaces[1].Process.PID()
	end(inside[slices.IndexFunc(inside, func(p *nsenter.Process) bool { return p.PID() == before })])
	if err := c.ReadTables(); err != nil {
		t.Fatal(err)
	}
	if now := c.Spaces[1]; now.Table == nil || now.Process.PID() == before {
		t.Errorf("process %d, before %d; it has a table: %t", now.Process.PID(), before, now.Table != nil)
	}
	for _, p := range inside {
		if p.PID() != before {
			end(p)
		}
	}
	if err := c.ReadTables(); err != nil || c.Spaces[1].Table != nil {
		t.Errorf("without a process: %v, it has a table: %t", err, c.Spaces[1].Table != nil)
	}
	end(init)
	if err := c.ReadTables(); !errors.Is(err, nsenter.ErrNoProcess) {
		t.Errorf("without the first process: %v", err)
	}
}

// processesIn opens the processes of the container in a mount namespace, until the end of
// the test.
func processesIn(t *testing.T, c *Container, namespace uint64) []*nsenter.Process {
	t.Helper()
	var list []*nsenter.Process
	for _, pid := range c.Members {
		if nsenter.MountNamespaceOf(pid).Inode == namespace {
			p, err := nsenter.Open(pid)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { p.Close() })
			list = append(list, p)
		}
	}
	return list
}

// TestMountTableLimit: the mount tables of a container, all together, have a limit, so
// that they cannot fill the host's memory.
func TestMountTableLimit(t *testing.T) {
	testenv.RequireRoot(t)
	// A blank in a path takes four bytes in a mount table ("\040").
	base := t.TempDir()
	if err := unix.Mount("none", base, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	deep := base + strings.Repeat("/"+strings.Repeat(" ", 200), 19)
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	const mounts = 1500 // 23 MB
	for range mounts {
		if err := unix.Mount("none", deep, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("unshare", "--mount", "sh", "-c",
		`for i in 1 2 3; do unshare --mount sh -c 'echo ready; exec sleep 60' & done; wait`)
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	child := testenv.StartPrepared(t, cmd)
	lines := bufio.NewReader(output)
	for range 3 {
		if _, err := lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	for range mounts { // the other namespaces have copies
		if err := unix.Unmount(deep, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Unmount(base, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	c, err := Open(testproc.Open(t, child), false)
	if err == nil || !strings.Contains(err.Error(), "mount tables: longer than") {
		t.Errorf("%v", err)
	}
	if c != nil {
		c.Close()
	}
}
