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
// after 300 ms. The lock ends when the returned file is closed or the process ends.
func (s Store) LockDevices(ctx context.Context) (*os.File, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, deviceLockTime, fmt.Errorf("other restores held it for %s", deviceLockTime))
	defer cancel()
	f, err := s.lockFolder(ctx, locksFolder)
	if err != nil {
		return nil, fmt.Errorf("lock of device numbers: %w", err)
	}
	return f, nil
}

// lockFolder takes the flock(2) of a folder. The kernel wakes the waiters for it in the
// order of their calls (fs/locks.c, __locks_insert_block).
func (s Store) lockFolder(ctx context.Context, name string) (*os.File, error) {
	f, taken, err := s.tryLockFolder(name)
	if err != nil || taken {
		return f, err
	}
	return awaitFlock(ctx, f)
}

// tryLockFolder opens a folder, and takes its lock if no other run has it.
func (s Store) tryLockFolder(name string) (f *os.File, taken bool, err error) {
	dir, err := s.makeFolder(name)
	if err != nil {
		return nil, false, err
	}
	if f, err = os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0); err != nil {
		return nil, false, err
	}
	return f, unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil, nil
}

// awaitFlock waits for the lock of a file, which it closes if ctx ends.
func awaitFlock(ctx context.Context, f *os.File) (*os.File, error) {
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
			return nil, os.NewSyscallError("flock", lockErr)
		}
		return f, nil
	case <-ctx.Done():
		// flock(2) cannot be cancelled: the lock is released as soon as it is taken.
		go func() {
			<-locked
			f.Close()
		}()
		return nil, context.Cause(ctx)
	}
}
