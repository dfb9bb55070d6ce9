package container

import (
	"bufio"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// TestRepresentative: the process that a mount namespace was found by ends while
// others live there, as the first process of a service does that forks; then these
// end too.
func TestRepresentative(t *testing.T) {
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
	init := open(t, child)
	sc, err := Open(init, false)
	if err != nil {
		t.Fatal(err)
	}
	defer sc.Close()
	if len(sc.Spaces) != 2 {
		t.Fatalf("%d mount namespaces, want 2", len(sc.Spaces))
	}
	var inside []*nsenter.Process
	for _, pid := range sc.Members {
		if nsenter.MountNamespaceOf(pid).Inode == sc.Spaces[1].ID {
			p, err := nsenter.Open(pid)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			inside = append(inside, p)
		}
	}
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
	if err := sc.ReadTables(); err != nil {
		t.Fatal(err)
	}
	before := sc.Spaces[1].Process.PID()
	end(inside[slices.IndexFunc(inside, func(p *nsenter.Process) bool { return p.PID() == before })])
	if err := sc.ReadTables(); err != nil {
		t.Fatal(err)
	}
	if now := sc.Spaces[1]; now.Table == nil || now.Process.PID() == before {
		t.Errorf("represented by %d, before by %d; it has a table: %t", now.Process.PID(), before, now.Table != nil)
	}
	for _, p := range inside {
		if p.PID() != before {
			end(p)
		}
	}
	if err := sc.ReadTables(); err != nil || sc.Spaces[1].Table != nil {
		t.Errorf("with nobody left: %v, it has a table: %t", err, sc.Spaces[1].Table != nil)
	}
	end(init)
	if err := sc.ReadTables(); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("without the first process: %v", err)
	}
}

// TestMountTablesTogether: the mount namespaces of a container may not fill the
// memory of the host with their tables, however many they are.
func TestMountTablesTogether(t *testing.T) {
	testenv.RequireRoot(t)
	// Each blank of a path takes four bytes in a mount table.
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
	for range mounts { // the others have copies of them
		if err := unix.Unmount(deep, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Unmount(base, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	sc, err := Open(open(t, child), false)
	if err == nil || !strings.Contains(err.Error(), "mount tables: longer than") {
		t.Errorf("%v", err)
	}
	if sc != nil {
		sc.Close()
	}
}
