package remover

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == Verb {
		if Run(os.Args[2:]) != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	testenv.Main(m)
}

// restore is a restore that ends in one way or another.
type restore struct {
	criu, init *testenv.Child
	dir        string // the container's own group, with a/b
}

// start starts a remover of a/b, but not of the group c in it.
func start(t *testing.T) restore {
	t.Helper()
	dir := testenv.Cgroup(t)
	if err := os.MkdirAll(dir+"/a/b", 0o755); err != nil {
		t.Fatal(err)
	}
	own, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	r := restore{criu: testenv.Start(t, nil), init: testenv.Start(t, nil), dir: dir}
	criu, init := testproc.Open(t, r.criu), testproc.Open(t, r.init)
	if err := Start(criu, init, nil, own, []string{"a", "a/b"}); err != nil {
		t.Fatal(err)
	}
	return r
}

// reap waits for the remover, which is a child of the test, and returns its exit
// status. The others must have been reaped.
func reap(t *testing.T) int {
	t.Helper()
	var status unix.WaitStatus
	done := make(chan error, 1)
	go func() {
		_, err := unix.Wait4(-1, &status, 0, nil)
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(testenv.Patience):
		t.Fatal("the remover does not end")
	}
	return status.ExitStatus()
}

func (r restore) has(t *testing.T, rel string) bool {
	t.Helper()
	_, err := os.Stat(filepath.Join(r.dir, rel))
	return err == nil
}

func TestFailedRestore(t *testing.T) {
	r := start(t)
	time.Sleep(50 * time.Millisecond)
	if !r.has(t, "a/b") {
		t.Fatal("removed while CRIU is at work")
	}
	r.init.End()
	r.criu.End()
	if status := reap(t); status != 0 || r.has(t, "a") {
		t.Errorf("exit status %d, a exists: %t", status, r.has(t, "a"))
	}
}

// TestSucceeded: the groups are the container's.
func TestSucceeded(t *testing.T) {
	r := start(t)
	r.criu.End()
	// The container's process is a child of the test too: it ends after the remover.
	if status := reap(t); status != 0 || !r.has(t, "a/b") {
		t.Errorf("exit status %d, a/b exists: %t", status, r.has(t, "a/b"))
	}
	r.init.End()
}

// TestInUse: a group that others have put something into stays.
func TestInUse(t *testing.T) {
	r := start(t)
	if err := os.Mkdir(r.dir+"/a/b/c", 0o755); err != nil {
		t.Fatal(err)
	}
	r.init.End()
	r.criu.End()
	if status := reap(t); status != 1 || !r.has(t, "a/b/c") {
		t.Errorf("exit status %d, a/b/c exists: %t", status, r.has(t, "a/b/c"))
	}
}

func TestRunArguments(t *testing.T) {
	for _, args := range [][]string{nil, {"1", "2", "3"}} {
		if Run(args) == nil {
			t.Errorf("%q: no error", args)
		}
	}
}
