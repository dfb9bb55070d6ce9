package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"

	"golang.org/x/sys/unix"
)

// lockInterval is the pause between two attempts to take a lock.
const lockInterval = 2 * time.Millisecond

// Lock is a lock of the journal.
type Lock struct{ file *os.File }

// Lock takes the lock of a container or a restore, of which p is the first process or the
// CRIU process. It waits for another run to release it: CRIU 3.19 to 4.1.1 call the
// action script of an RPC configuration file (runc.conf) twice at each stage, and an OCI
// hook may be called at the same time. The lock ends with this process.
func (s Store) Lock(ctx context.Context, p *nsenter.Process) (*Lock, error) {
	name := p.Identity()
	dir, err := s.makeFolder(locksFolder)
	if err != nil {
		return nil, fmt.Errorf("lock %q: %w", name, err)
	}
	path := filepath.Join(dir, name)
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock %q: %w", name, err)
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && isSameFile(f, path) {
			return &Lock{f}, nil
		}
		f.Close() // another run has the lock, or has just removed the file
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, fmt.Errorf("lock %q: %w", name, os.NewSyscallError("flock", err))
		}
		select {
		case <-time.After(lockInterval):
		case <-ctx.Done():
			return nil, fmt.Errorf("another run has the lock %q: %w", name, context.Cause(ctx))
		}
	}
}

// Locked reports whether a run has the lock of a container or a restore, of which p is the
// first process or the CRIU process. It is false if that cannot be read.
func (s Store) Locked(p *nsenter.Process) bool {
	path := filepath.Join(s.dir, locksFolder, p.Identity())
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// isSameFile reports whether the path still leads to the open file.
func isSameFile(f *os.File, path string) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(path)
	return err == nil && os.SameFile(open, named)
}

// Unlock releases the lock and removes its file.
func (l *Lock) Unlock() {
	_ = os.Remove(l.file.Name())
	l.file.Close()
}
