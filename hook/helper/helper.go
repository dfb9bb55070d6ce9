// Package helper starts processes of our own that keep files open when this one
// has ended.
//
// CRIU calls the program once for each stage of a restore, and what one stage
// opens (the roots of autofs mounts, a device number, a mount namespace) is needed
// by the next. A helper is a process that does nothing but have these files open.
// It has no socket and speaks no protocol: a later run copies a descriptor out of
// it with pidfd_getfd(2), which the kernel allows to root only. It ends by itself
// when the process it is bound to ends, or when its time is over.
//
// A helper can be a dead-man's switch, too: at its end it makes autofs mounts of
// ours catatonic, so that no process is left waiting on them.
package helper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/spawn"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Verb is the hidden command with which the program runs as a helper.
const Verb = "hold-files"

// The helper's descriptors: after standard input, output and error comes the
// pidfd of the process it is bound to, then the files it holds.
const (
	boundFile = 3
	firstFile = 4
)

// Ref names a helper in a record. The start time tells it from any later
// process with the same number.
type Ref struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"start_time"`
	Files     int    `json:"files"`
}

// ErrGone means that the helper has ended, and its files are closed.
var ErrGone = errors.New("the process that held files has ended")

// Request describes a helper.
type Request struct {
	// Bound is the process with which the helper ends.
	Bound *nsenter.Process
	// Model is a process to whose control groups the helper moves, nil for none:
	// runc puts CRIU and its action scripts into the container's, where the helper
	// must not stay.
	Model *nsenter.Process
	// Lifetime is the longest that the helper lives, in whole seconds.
	Lifetime time.Duration
	Files    []*os.File
	// Release is how many of the files, from the first on, are roots of autofs
	// mounts that the helper makes catatonic when it ends, unless it is stopped.
	Release int
}

// Start starts a helper. A failure to move to the control groups of the model is
// returned beside a valid Ref, as ErrNotMoved.
func Start(r Request) (Ref, error) { return r.start(r.Files, 0) }

// StartUnrecorded is Start for a helper that ends with this process, until
// recorded is called: a helper that no record names is found by no later run.
func StartUnrecorded(r Request) (ref Ref, recorded func() error, err error) {
	read, write, err := os.Pipe()
	if err != nil {
		return Ref{}, nil, err
	}
	defer read.Close()
	ref, err = r.start(append(r.Files[:len(r.Files):len(r.Files)], read), firstFile+len(r.Files))
	ref.Files = len(r.Files)
	if ref.PID == 0 {
		write.Close()
		return ref, nil, err
	}
	return ref, func() error {
		_, err := write.Write([]byte{1})
		return errors.Join(err, write.Close())
	}, err
}

// boundTime bounds the life of a helper that is bound to this process: a run ends
// before.
const boundTime = 10 * time.Second

// StartBoundToSelf starts a helper that ends with this process, and makes the
// first autofs mounts of the files catatonic then.
func StartBoundToSelf(files []*os.File, release int) (Ref, error) {
	self, err := nsenter.Open(os.Getpid())
	if err != nil {
		return Ref{}, err
	}
	defer self.Close()
	return Start(Request{Bound: self, Lifetime: boundTime, Files: files, Release: release})
}

func (r Request) start(files []*os.File, pipe int) (Ref, error) {
	args := []string{Verb, strconv.Itoa(int(r.Lifetime.Seconds())), strconv.Itoa(pipe), strconv.Itoa(r.Release)}
	var capabilities uint64
	if r.Release > 0 {
		capabilities = 1 << unix.CAP_SYS_ADMIN // for the ioctl
	}
	p, err := spawn.Self(args, append([]*os.File{r.Bound.Pidfd()}, files...), r.Model, capabilities)
	if err != nil {
		err = fmt.Errorf("start the process that holds files: %w", err)
	}
	if p == nil {
		return Ref{}, err
	}
	defer p.Close()
	return Ref{PID: p.PID(), StartTime: p.StartTime(), Files: len(files)}, err
}

// ErrNotMoved means that a helper stayed in the container's control group.
var ErrNotMoved = spawn.ErrNotMoved

// Open copies the held file with the given index, in the order of Start. It
// stays open in the helper too.
func (r Ref) Open(index int) (*os.File, error) {
	if index < 0 || index >= r.Files {
		return nil, fmt.Errorf("held file %d: the helper has %d", index, r.Files)
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
	ending := false
	for i := from; i < to; i++ {
		fd, err := unix.PidfdGetfd(int(p.Pidfd().Fd()), firstFile+i, 0)
		if err != nil {
			ending = ending || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EBADF)
			errs = append(errs, fmt.Errorf("held file %d of process %d: %w", i, r.PID, os.NewSyscallError("pidfd_getfd", err)))
			continue
		}
		files[i-from] = os.NewFile(uintptr(fd), "held:"+strconv.Itoa(i)) // close-on-exec by pidfd_getfd(2)
	}
	// A process that is ending has closed its files before it has ended. Older
	// kernels say EBADF ("pidfd: getfd should always report ESRCH if a process is exiting").
	if ending && p.EndsWithin(endTime) {
		for _, f := range files {
			f.Close() // nil for most
		}
		return nil, fmt.Errorf("process %d: %w", r.PID, ErrGone)
	}
	return files, errors.Join(errs...)
}

// endTime bounds how long it takes a process that is ending to end.
const endTime = time.Second

// maxFiles bounds how many files a record may speak of.
const maxFiles = 1 << 16

// Stop ends the helper and returns when its files are closed; nothing is released.
// It is no error if it has ended already.
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

// Run is what a helper process does; args are its arguments. It returns when the
// process it is bound to has ended, or its lifetime has.
func Run(args []string) error {
	var numbers [3]int // as in start
	if len(args) != len(numbers) {
		return fmt.Errorf("%s: want the lifetime in seconds, the descriptor of a pipe or 0, and a number of mounts to release", Verb)
	}
	for i, text := range args {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return fmt.Errorf("%s: argument %q: want a number", Verb, text)
		}
		numbers[i] = n
	}
	lifetime, pipe, release := time.Duration(numbers[0])*time.Second, numbers[1], numbers[2]
	if release == 0 {
		_ = spawn.Confine() // it only waits
	}
	if pipe == 0 || recorded(pipe) {
		if err := await(lifetime); err != nil {
			return err
		}
	}
	var errs []error
	for i := range release {
		errs = append(errs, autofs.Release(os.NewFile(uintptr(firstFile+i), "autofs root")))
	}
	return errors.Join(errs...)
}

// recorded waits until the process that started us has recorded us; false if it
// has ended before.
func recorded(pipe int) bool {
	f := os.NewFile(uintptr(pipe), "pipe")
	defer f.Close()
	_, err := f.Read(make([]byte, 1))
	return err == nil
}

// await waits for the end of the bound process.
func await(lifetime time.Duration) error {
	end := time.Now().Add(lifetime)
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
