package hook

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// lockInterval is the pause between two attempts to take a lock.
const lockInterval = 2 * time.Millisecond

// lock makes sure that only one run works on a container at a time. It waits
// for a run under way: CRIU 3.19 to 4.1.1 call a script of an RPC configuration
// file (runc.conf) twice at each stage, and an OCI hook may come on top of that.
// The lock ends with the process.
func (s store) lock(ctx context.Context, p *nsenter.Process) (*os.File, error) {
	name := p.Identity()
	dir := filepath.Join(s.dir, "locks")
	if err := os.MkdirAll(dir, 0o700); err != nil { //nolint:forbidigo // the host's own /run
		return nil, fmt.Errorf("lock %q: %w", name, err)
	}
	path := filepath.Join(dir, name)
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock %q: %w", name, err)
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && isFile(f, path) {
			return f, nil
		}
		f.Close() // another run's, or removed by the run that had it before
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

// isFile reports whether the path still names the open file.
func isFile(f *os.File, path string) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(path)
	return err == nil && os.SameFile(open, named)
}

// unlock removes the lock file, whose process may never be looked at again,
// and ends the lock.
func (s store) unlock(f *os.File) {
	_ = os.Remove(f.Name())
	f.Close()
}
