package journal

import (
	"context"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
)

// TestDeviceLockTimeout: a run does not wait long for the lock, because restored processes
// are stopped meanwhile.
func TestDeviceLockTimeout(t *testing.T) {
	s := NewStore(t.TempDir())
	ctx, cancel := context.WithTimeout(context.Background(), testenv.Patience)
	defer cancel()
	held, err := s.LockDevices(ctx)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if f, err := s.LockDevices(ctx); err == nil {
		f.Close()
		t.Error("locked twice")
	}
	if took := time.Since(begin); took < 200*time.Millisecond || took > testenv.Patience {
		t.Errorf("it waited for %v, want 300 ms", took)
	}
	held.Close()
	// The attempt that timed out must release the lock.
	f, err := s.LockDevices(ctx)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// TestDeviceLockOrder: waiters get the lock in the order of their calls. On a busy machine
// some may have timed out before the last one waits: then it tries again.
func TestDeviceLockOrder(t *testing.T) {
	testenv.RequireRoot(t)
	testenv.Eventually(t, "ten waiters at once", func() bool {
		order := lockInTurn(t)
		if !slices.IsSorted(order) {
			t.Errorf("the order was %v", order)
		}
		return len(order) == 10
	})
}

// lockInTurn has ten waiters for the lock, and returns the order in which they got it.
func lockInTurn(t *testing.T) []int {
	t.Helper()
	s := NewStore(t.TempDir())
	ctx, cancel := context.WithTimeout(context.Background(), testenv.Patience)
	defer cancel()
	held, err := s.LockDevices(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var mutex sync.Mutex
	var order []int
	var work sync.WaitGroup
	for i := range 10 {
		work.Go(func() {
			f, err := s.LockDevices(ctx)
			if err != nil {
				return // timed out
			}
			mutex.Lock()
			order = append(order, i)
			mutex.Unlock()
			time.Sleep(time.Millisecond)
			f.Close()
		})
		testenv.Eventually(t, "a waiter in the kernel's list", func() bool { return blockedLocks(t) == i+1 })
	}
	held.Close()
	work.Wait()
	return order
}

// blockedLocks returns the number of waiters for locks in this pid namespace.
func blockedLocks(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/locks")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), "->")
}
