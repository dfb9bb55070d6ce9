package freezer

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/spawn"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Verb is the hidden command with which the program runs as a guard.
const Verb = "thaw-groups"

// guardTime is the longest that a container stays frozen.
const guardTime = 8 * time.Second

// The guard's descriptors: the pidfd of the process it watches, then the
// control files, those of version 2 first.
const (
	watchedFile  = 3
	firstControl = 4
)

// guardRef names a guard: a process that thaws groups if nobody else does.
type guardRef struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"start_time"`
}

func startGuard(until *nsenter.Process, groups []group) (guardRef, error) {
	if until == nil {
		self, err := nsenter.Open(os.Getpid())
		if err != nil {
			return guardRef{}, err
		}
		defer self.Close()
		until = self
	}
	files := []*os.File{until.Pidfd()}
	args := []string{Verb}
	for _, g := range groups {
		files = append(files, g.control)
		args = append(args, g.thaw)
	}
	p, err := spawn.Self(args, files, nil)
	if err != nil {
		return guardRef{}, fmt.Errorf("start the process that would thaw the container: %w", err)
	}
	defer p.Close()
	return guardRef{PID: p.PID(), StartTime: p.StartTime()}, nil
}

// stop ends the guard. It is reaped by whoever its parent is by then.
func (g guardRef) stop() {
	p, err := nsenter.OpenIdentity(g.PID, g.StartTime)
	if err != nil {
		return
	}
	defer p.Close()
	_ = p.Signal(unix.SIGKILL)
	_ = unix.Waitid(unix.P_PIDFD, int(p.Pidfd().Fd()), nil, unix.WEXITED, nil) // ECHILD if it is not ours
}

// RunGuard is what a guard does; args are the words to be written, one for each
// control file. It returns when all groups are thawed.
func RunGuard(args []string) error {
	end := time.Now().Add(guardTime)
	for {
		fds := []unix.PollFd{{Fd: watchedFile, Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(max(time.Until(end).Milliseconds(), 0)))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n > 0 || err != nil || !time.Now().Before(end) {
			break
		}
	}
	var errs []error
	for i, word := range args {
		if _, err := unix.Write(firstControl+i, []byte(word)); err != nil && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("thaw group %s: %w", strconv.Itoa(i), err))
		}
	}
	return errors.Join(errs...)
}
