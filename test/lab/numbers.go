package lab

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testlock"
)

var (
	numbersMutex sync.Mutex
	numbersLock  *os.File
)

// lockNumbers keeps other tests of this machine, which would take numbers, from running
// until the end of the test. It waits for those that run.
func lockNumbers(t testing.TB) {
	t.Helper()
	numbersMutex.Lock()
	defer numbersMutex.Unlock()
	if numbersLock != nil {
		return
	}
	var err error
	if numbersLock, err = testlock.Alone(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		numbersMutex.Lock()
		defer numbersMutex.Unlock()
		numbersLock.Close()
		numbersLock = nil
	})
}

// Numbers are anonymous device numbers that are taken, so that no other file system gets
// them. Each is a tmpfs that is mounted nowhere.
type Numbers struct {
	mu    sync.Mutex
	files []*os.File
}

// HoldNumbers takes the count lowest free numbers until Release or the end of
// the test.
func HoldNumbers(t testing.TB, count int) *Numbers {
	t.Helper()
	lockNumbers(t)
	n := &Numbers{}
	t.Cleanup(n.Release)
	for range count {
		if _, err := n.hold(); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// HoldNumbersUpTo takes every free number up to and including the given minor.
func HoldNumbersUpTo(t testing.TB, minor uint32) *Numbers {
	t.Helper()
	lockNumbers(t)
	n := &Numbers{}
	t.Cleanup(n.Release)
	for {
		got, err := n.hold()
		if err != nil {
			t.Fatal(err)
		}
		if got >= minor {
			return n
		}
	}
}

// Release frees the numbers. It may be called more than once.
func (n *Numbers) Release() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, f := range n.files {
		f.Close()
	}
	n.files = nil
}

// Count returns how many numbers are taken.
func (n *Numbers) Count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.files)
}

// hold takes the lowest free number.
func (n *Numbers) hold() (uint32, error) {
	context, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return 0, fmt.Errorf("hold a device number: %w", os.NewSyscallError("fsopen", err))
	}
	defer unix.Close(context)
	if err := unix.FsconfigCreate(context); err != nil {
		return 0, fmt.Errorf("hold a device number: %w", os.NewSyscallError("fsconfig", err))
	}
	fd, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("hold a device number: %w", os.NewSyscallError("fsmount", err))
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return 0, fmt.Errorf("hold a device number: %w", os.NewSyscallError("fstat", err))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.files = append(n.files, os.NewFile(uintptr(fd), "held device number"))
	return unix.Minor(st.Dev), nil
}
