package mounts

import (
	"context"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// maxPoll bounds one wait for a change, and so how late the end of ctx is noticed.
const maxPoll = 20 * time.Millisecond

// Await reads the mount table of a process, again each time that the kernel reports a
// change (POLLPRI, proc_pid_mountinfo(5)), until done reports true. At the end of ctx it
// returns the table with ctx's error.
func Await(ctx context.Context, p *nsenter.Process, done func(*Table) bool) (*Table, error) {
	f, err := p.OpenProc("mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
		t, err := Read(f)
		if err != nil {
			return nil, fmt.Errorf("process %d: %w", p.PID(), err)
		}
		if done(t) {
			return t, nil
		}
		for changed := false; !changed; {
			if ctx.Err() != nil {
				return t, context.Cause(ctx)
			}
			n, err := sys.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}, maxPoll)
			if err != nil {
				return t, err
			}
			changed = n > 0
		}
	}
}
