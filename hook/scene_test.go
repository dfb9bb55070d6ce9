package hook

import (
	"bufio"
	"os/exec"
	"slices"
	"strings"
	"testing"

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
	sc, err := look(init, false)
	if err != nil {
		t.Fatal(err)
	}
	defer sc.close()
	if len(sc.spaces) != 2 {
		t.Fatalf("%d mount namespaces, want 2", len(sc.spaces))
	}
	var inside []*nsenter.Process
	for _, pid := range sc.members {
		if nsenter.MountNamespaceOf(pid).Inode == sc.spaces[1].id {
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
	if err := sc.readTables(); err != nil {
		t.Fatal(err)
	}
	before := sc.spaces[1].process.PID()
	end(inside[slices.IndexFunc(inside, func(p *nsenter.Process) bool { return p.PID() == before })])
	if err := sc.readTables(); err != nil {
		t.Fatal(err)
	}
	if now := sc.spaces[1]; now.table == nil || now.process.PID() == before {
		t.Errorf("represented by %d, before by %d; it has a table: %t", now.process.PID(), before, now.table != nil)
	}
	for _, p := range inside {
		if p.PID() != before {
			end(p)
		}
	}
	if err := sc.readTables(); err != nil || sc.spaces[1].table != nil {
		t.Errorf("with nobody left: %v, it has a table: %t", err, sc.spaces[1].table != nil)
	}
	end(init)
	if err := sc.readTables(); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("without the first process: %v", err)
	}
}
