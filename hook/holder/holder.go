// Package holder keeps open files alive between two runs of the program.
//
// CRIU calls the program once for each stage of a restore, and what one stage
// opens (the roots of the autofs mounts, a device number, a mount namespace)
// is needed by the next. A holder is a process of our own that does nothing but
// have these files open. It has no socket and speaks no protocol: a later run
// copies a descriptor out of it with pidfd_getfd(2), which the kernel allows to
// root only. It ends by itself when the process it is bound to (CRIU) ends, or
// when its time is over; nothing has to be cleaned up then.
package holder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/spawn"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Verb is the hidden command with which the program runs as a holder.
const Verb = "hold-files"

// The holder's descriptors: after standard input, output and error comes the
// pidfd of the process it is bound to, then the files it holds.
const (
	boundFile = 3
	firstFile = 4
)

// Ref names a holder in a record. The start time tells it from any later
// process with the same number.
type Ref struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"start_time"`
	Files     int    `json:"files"`
}

// ErrGone means that the holder has ended, and its files are closed.
var ErrGone = errors.New("the process that held files has ended")

// Start starts a holder of the given files, bound to the life of bound and to
// a lifetime. It moves to the control groups of model: runc puts CRIU and its
// action scripts into the container's, where the holder must not stay. A
// failure to move is returned beside a valid Ref as a warning (errors.Is
// ErrNotMoved).
func Start(bound, model *nsenter.Process, lifetime time.Duration, files []*os.File) (Ref, error) {
	return startHolder(bound, model, files, Verb, strconv.Itoa(int(lifetime.Seconds())))
}

// StartUnrecorded is Start for a holder that ends with this process, until
// recorded is called: a holder that no record names is found by nobody.
func StartUnrecorded(bound *nsenter.Process, lifetime time.Duration, files []*os.File) (r Ref, recorded func() error, err error) {
	read, write, err := os.Pipe()
	if err != nil {
		return Ref{}, nil, err
	}
	defer read.Close()
	r, err = startHolder(bound, nil, append(files[:len(files):len(files)], read),
		Verb, strconv.Itoa(int(lifetime.Seconds())), strconv.Itoa(firstFile+len(files)))
	r.Files = len(files)
	if err != nil {
		write.Close()
		return r, nil, err
	}
	return r, func() error {
		_, err := write.Write([]byte{1})
		return errors.Join(err, write.Close())
	}, nil
}

func startHolder(bound, model *nsenter.Process, files []*os.File, args ...string) (Ref, error) {
	p, err := spawn.Self(args, append([]*os.File{bound.Pidfd()}, files...), model, 0)
	if err != nil {
		err = fmt.Errorf("start the process that holds files: %w", err)
	}
	if p == nil {
		return Ref{}, err
	}
	defer p.Close()
	return Ref{PID: p.PID(), StartTime: p.StartTime(), Files: len(files)}, err
}

// ErrNotMoved means that a holder stayed in the container's control group.
var ErrNotMoved = spawn.ErrNotMoved

// Open copies the held file with the given index, in the order of Start. It
// stays open in the holder too.
func (r Ref) Open(index int) (*os.File, error) {
	if index < 0 || index >= r.Files {
		return nil, fmt.Errorf("held file %d: the holder has %d", index, r.Files)
	}
	files, err := r.open(index, index+1)
	if err != nil {
		return nil, err
	}
	return files[0], nil
}

// OpenAll is Open for all held files. Where one cannot be copied there is nil in
// its place; the errors are joined.
func (r Ref) OpenAll() ([]*os.File, error) {
	if r.Files <= 0 {
		return nil, nil
	}
	return r.open(0, min(r.Files, maxFiles))
}

func (r Ref) open(from, to int) ([]*os.File, error) {
	p, err := r.process()
	if err != nil {
		return nil, err
	}
	defer p.Close()
	if p.Ended() {
		return nil, fmt.Errorf("process %d: %w", r.PID, ErrGone)
	}
	files := make([]*os.File, to-from)
	var errs []error
	for i := from; i < to; i++ {
		fd, err := unix.PidfdGetfd(int(p.Pidfd().Fd()), firstFile+i, 0)
		if err != nil {
			errs = append(errs, fmt.Errorf("held file %d of process %d: %w", i, r.PID, os.NewSyscallError("pidfd_getfd", err)))
			continue
		}
		files[i-from] = os.NewFile(uintptr(fd), "held:"+strconv.Itoa(i)) // close-on-exec by pidfd_getfd(2)
	}
	return files, errors.Join(errs...)
}

// maxFiles bounds how many files a record may speak of.
const maxFiles = 1 << 16

// Stop ends the holder and returns when its files are closed. It is no error if
// it has ended already.
func (r Ref) Stop(ctx context.Context) error {
	p, err := r.process()
	if errors.Is(err, ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer p.Close()
	if err := p.Signal(unix.SIGKILL); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return p.WaitEnd(ctx) // a process closes its files before it is waited for
}

func (r Ref) process() (*nsenter.Process, error) {
	if r.PID <= 0 {
		return nil, ErrGone
	}
	p, err := nsenter.OpenIdentity(r.PID, r.StartTime)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("process %d: %w", r.PID, ErrGone)
	}
	return p, err
}

// Run is what a holder process does; args are its arguments. It returns when
// the process it is bound to has ended, or its lifetime has.
func Run(args []string) error {
	if len(args) != 1 && len(args) != 2 {
		return fmt.Errorf("%s: want the lifetime in seconds, and perhaps the descriptor of a pipe", Verb)
	}
	seconds, err := strconv.Atoi(args[0])
	if err != nil || seconds <= 0 {
		return fmt.Errorf("%s: lifetime %q: want a positive number of seconds", Verb, args[0])
	}
	if len(args) == 2 {
		fd, err := strconv.Atoi(args[1])
		if err != nil || fd < firstFile {
			return fmt.Errorf("%s: pipe %q: want a descriptor", Verb, args[1])
		}
		pipe := os.NewFile(uintptr(fd), "pipe")
		if _, err := pipe.Read(make([]byte, 1)); err != nil {
			return nil //nolint:nilerr // who started us has ended, and nobody knows us
		}
		pipe.Close()
	}
	end := time.Now().Add(time.Duration(seconds) * time.Second)
	for {
		left := time.Until(end).Milliseconds()
		if left <= 0 {
			return nil
		}
		fds := []unix.PollFd{{Fd: boundFile, Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(min(left, 1<<30)))
		switch {
		case n > 0:
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("%s: %w", Verb, os.NewSyscallError("poll", err))
		}
	}
}
