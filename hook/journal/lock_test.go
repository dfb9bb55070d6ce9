package journal

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"

	"golang.org/x/sys/unix"
)

// TestLock: only one goroutine at a time has the lock, although each removes the file.
func TestLock(t *testing.T) {
	s := NewStore(t.TempDir())
	p, another := testproc.Open(t, testenv.Start(t, nil)), testproc.Open(t, testenv.Start(t, nil))
	var inside, most, count atomic.Int32
	var work sync.WaitGroup
	ctx, cancel := context.WithTimeout(context.Background(), testenv.Patience)
	defer cancel()
	for range 8 {
		work.Go(func() {
			for range 10 {
				f, err := s.Lock(ctx, p)
				if err != nil {
					t.Error(err)
					return
				}
				if n := inside.Add(1); n > most.Load() {
					most.Store(n)
				}
				count.Add(1)
				time.Sleep(100 * time.Microsecond)
				inside.Add(-1)
				f.Unlock()
			}
		})
	}
	work.Wait()
	if most.Load() != 1 || count.Load() != 80 {
		t.Errorf("%d at once, %d in all", most.Load(), count.Load())
	}
	f, err := s.Lock(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	free, err := s.Lock(ctx, another)
	if err != nil {
		t.Fatalf("another container: %v", err)
	}
	if !s.Locked(p) || !s.Locked(another) {
		t.Error("not Locked while the locks are taken")
	}
	free.Unlock()
	if !s.Locked(p) || s.Locked(another) {
		t.Error("Locked is not true of the taken lock alone")
	}
	cause := errors.New("no time")
	short, stop := context.WithTimeoutCause(context.Background(), 20*time.Millisecond, cause)
	defer stop()
	if g, err := s.Lock(short, p); !errors.Is(err, cause) || g != nil {
		t.Errorf("locked twice: %v, %v", g, err)
	}
	f.Unlock()
	if entries, err := os.ReadDir(filepath.Join(s.dir, "locks")); err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// TestLockOfProcess: Lock waits for the lock of another process, which ends with it.
func TestLockOfProcess(t *testing.T) {
	s := NewStore(t.TempDir())
	p := testproc.Open(t, testenv.Start(t, nil))
	path := filepath.Join(s.dir, "locks", p.Identity())
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	holder := testenv.StartCommand(t, nil, "flock", "--no-fork", path, "cat")
	testenv.Eventually(t, "a lock of another process", func() bool {
		f, err := os.OpenFile(path, unix.O_RDWR, 0)
		if err != nil {
			return false
		}
		defer f.Close()
		return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
	})
	begin := time.Now()
	time.AfterFunc(30*time.Millisecond, func() { holder.Input.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), testenv.Patience)
	defer cancel()
	f, err := s.Lock(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	f.Unlock()
	if d := time.Since(begin); d < 20*time.Millisecond || d > testenv.Patience {
		t.Errorf("locked after %v", d)
	}
}
