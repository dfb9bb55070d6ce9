package restores

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

func newClaims(t *testing.T, dir string) *claims {
	t.Helper()
	l, err := openClaims(dir)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// sleeper is the identity of a process that lives until the test ends.
func sleeper(t *testing.T) (key string, end func()) {
	t.Helper()
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	t.Cleanup(end)
	p, err := nsenter.Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	return p.Identity(), end
}

func TestClaim(t *testing.T) {
	l := newClaims(t, filepath.Join(t.TempDir(), "new", "claims"))
	key, _ := sleeper(t)
	var claimed atomic.Int32
	var group sync.WaitGroup
	for range 100 {
		group.Go(func() {
			if l.claim(key) {
				claimed.Add(1)
			}
		})
	}
	group.Wait()
	if n := claimed.Load(); n != 1 {
		t.Errorf("claimed %d times at once, want once", n)
	}
	l.release(key)
	if !l.claim(key) {
		t.Error("not claimed again after it was released")
	}
	if err := l.done(key); err != nil {
		t.Fatal(err)
	}
	l.release(key)
	if l.claim(key) {
		t.Error("claimed again after it was done")
	}
}

// TestRestart has one agent after the other.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	done, _ := sleeper(t)
	started, _ := sleeper(t)
	l := newClaims(t, dir)
	l.claim(done)
	l.claim(started)
	if err := l.done(done); err != nil {
		t.Fatal(err)
	}
	// Other files there are not ours.
	if err := os.WriteFile(filepath.Join(dir, "a note"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l = newClaims(t, dir)
	if l.claim(done) {
		t.Error("what was done is to be done again")
	}
	if !l.claim(started) {
		t.Error("what was only started is never done")
	}
	if _, err := os.Stat(filepath.Join(dir, "a note")); err != nil {
		t.Error(err)
	}
}

func TestSweep(t *testing.T) {
	dir := t.TempDir()
	l := newClaims(t, dir)
	lives, _ := sleeper(t)
	dies, end := sleeper(t)
	for _, key := range []string{lives, dies} {
		l.claim(key)
		if err := l.done(key); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := l.sweep(); n != 2 || err != nil {
		t.Errorf("%d are left, %v, want 2", n, err)
	}
	end()
	if n, err := l.sweep(); n != 1 || err != nil {
		t.Errorf("%d are left, %v, want 1", n, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != lives {
		t.Errorf("%v, %v, want only %s", entries, err, lives)
	}
	if l.claim(lives) {
		t.Error("a sweep forgot a process that lives")
	}
}

// TestNoPath shows that a key never becomes a path.
func TestNoPath(t *testing.T) {
	l := newClaims(t, t.TempDir())
	for _, key := range []string{"", "../1-2", "1", "1-", "-1-2", "0-2", "a-2", "1-b", "1-2/3"} {
		if err := l.done(key); err == nil {
			t.Errorf("done(%q) wrote a file", key)
		}
	}
}

func TestNoFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openClaims(file); err == nil {
		t.Error("a file is opened as claims")
	}
}
