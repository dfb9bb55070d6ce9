// Package guard undoes what must not outlast us: a guard is a process of our own
// that watches another one, and when that ends without having called it off, or
// when the time is over, it thaws control groups and lets go of processes that
// wait on an automount of ours.
package guard

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/spawn"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Verb is the hidden command with which the program runs as a guard.
const Verb = "undo-if-killed"

// guardTime is the longest that anything stays as it is.
const guardTime = 8 * time.Second

// The guard's descriptors: the pidfd of the process it watches, then the files
// of its actions, in their order.
const (
	watchedFile = 3
	firstFile   = 4
)

// Action is one thing that a guard does.
type Action struct {
	File *os.File
	// Word is written to the file, or [LetGo].
	Word string
}

// LetGo is the Word for the root of an autofs mount: see autofs.Release, so
// that nobody goes on waiting on it.
const LetGo = "catatonic"

// Ref names a guard. The zero Ref names none.
type Ref struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"start_time"`
}

// Start starts a guard that watches a process, nil for this one.
func Start(watched *nsenter.Process, actions []Action) (Ref, error) {
	if watched == nil {
		self, err := nsenter.Open(os.Getpid())
		if err != nil {
			return Ref{}, err
		}
		defer self.Close()
		watched = self
	}
	files := []*os.File{watched.Pidfd()}
	args := []string{Verb}
	var capabilities uint64
	for _, a := range actions {
		if a.Word == LetGo {
			capabilities = 1 << unix.CAP_SYS_ADMIN // for the ioctl
		}
		files = append(files, a.File)
		args = append(args, a.Word)
	}
	p, err := spawn.Self(args, files, nil, capabilities)
	if err != nil {
		return Ref{}, fmt.Errorf("start the process that undoes this if we are killed: %w", err)
	}
	defer p.Close()
	return Ref{PID: p.PID(), StartTime: p.StartTime()}, nil
}

// Stop ends the guard. It is reaped by whoever its parent is by then.
func (g Ref) Stop() {
	if g.PID <= 0 {
		return
	}
	p, err := nsenter.OpenIdentity(g.PID, g.StartTime)
	if err != nil {
		return
	}
	defer p.Close()
	_ = p.Signal(unix.SIGKILL)
	_ = unix.Waitid(unix.P_PIDFD, int(p.Pidfd().Fd()), nil, unix.WEXITED, nil) // ECHILD if it is not ours
}

// Run is what a guard does; args are the words of its actions. It returns when
// all is undone.
func Run(args []string) error {
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
		if err := undo(firstFile+i, word); err != nil {
			errs = append(errs, fmt.Errorf("undo %d (%s): %w", i, word, err))
		}
	}
	return errors.Join(errs...)
}

func undo(fd int, word string) error {
	if word == LetGo {
		return autofs.Release(os.NewFile(uintptr(fd), "autofs root"))
	}
	if _, err := unix.Write(fd, []byte(word)); err != nil && !errors.Is(err, unix.ENODEV) { // the group is gone
		return os.NewSyscallError("write", err)
	}
	return nil
}
