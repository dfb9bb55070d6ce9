package journal

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"

	"golang.org/x/sys/unix"
)

// deviceLockTime is how long a run waits for the lock of device numbers. It is short,
// because the restored processes are stopped meanwhile and systemd can re-execute itself
// instead.
const deviceLockTime = 300 * time.Millisecond

// LockDevices takes the lock of device numbers, so that only one run of the machine at a
// time allocates them: it temporarily takes numbers that another run may want. It fails
// after 300 ms. The kernel wakes the waiters for a lock in the order of their calls
// (fs/locks.c, __locks_insert_block). The lock is an flock(2) of the folder of locks; it
// ends when the returned file is closed or the process ends.
func (s Store) LockDevices(ctx context.Context) (*os.File, error) {
	dir, err := s.makeFolder(locksFolder)
	if err != nil {
		return nil, fmt.Errorf("lock of device numbers: %w", err)
	}
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("lock of device numbers: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, deviceLockTime, fmt.Errorf("other restores held it for %s", deviceLockTime))
	defer cancel()
	locked := make(chan struct{})
	var lockErr error
	go func() {
		defer close(locked)
		_, lockErr = sys.Retry(func() (int, error) { return 0, unix.Flock(int(f.Fd()), unix.LOCK_EX) })
	}()
	select {
	case <-locked:
		if lockErr != nil {
			f.Close()
			return nil, fmt.Errorf("lock of device numbers: %w", os.NewSyscallError("flock", lockErr))
		}
		return f, nil
	case <-ctx.Done():
		// flock(2) cannot be cancelled: the lock is released as soon as it is taken.
		go func() {
			<-locked
			f.Close()
		}()
		return nil, fmt.Errorf("lock of device numbers: %w", context.Cause(ctx))
	}
}
