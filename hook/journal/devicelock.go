package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// deviceLockTime is how long a run waits for the device numbers. The tasks of the
// restore are stopped meanwhile, and there is another cure.
const deviceLockTime = 300 * time.Millisecond

// LockDevices makes sure that only one run at a time fills device numbers on
// this machine: it takes numbers for a moment that another one may want. The
// kernel wakes waiters in the order in which they came (fs/locks.c,
// __locks_insert_block). The lock is on the folder of the locks, and ends with
// the file or the process.
func (s Store) LockDevices(ctx context.Context) (*os.File, error) {
	dir, err := s.makeFolder(locksFolder)
	if err != nil {
		return nil, fmt.Errorf("lock of device numbers: %w", err)
	}
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("lock of device numbers: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, deviceLockTime, fmt.Errorf("other restores had it for %s", deviceLockTime))
	defer cancel()
	locked := make(chan struct{})
	var failed error
	go func() {
		defer close(locked)
		failed = flock(f)
	}()
	select {
	case <-locked:
		if failed != nil {
			f.Close()
			return nil, fmt.Errorf("lock of device numbers: %w", failed)
		}
		return f, nil
	case <-ctx.Done():
		// The waiter in the kernel cannot be called back: what it gets is given
		// back at once.
		go func() {
			<-locked
			f.Close()
		}()
		return nil, fmt.Errorf("lock of device numbers: %w", context.Cause(ctx))
	}
}

func flock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("flock", err)
		}
	}
}
