// Package fdstore starts helper processes, which keep files open after this process has
// ended.
//
// CRIU calls the program once for each stage of a restore, and each stage needs files
// that an earlier one opened: the roots of autofs mounts, a device number, a mount
// namespace. A helper only keeps these files open. It has no socket and no protocol: a
// later run copies a descriptor from it with pidfd_getfd(2), which the kernel allows to
// root only. It ends when the process it is bound to ends, or at the end of its lifetime.
//
// A helper can also be a dead-man's switch: when it ends it makes our autofs mounts
// catatonic, so that no process is left waiting on them.
package fdstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/helper/spawn"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Verb is the hidden command with which the program runs as a helper.
const Verb = "hold-files"

// The helper's descriptors: after standard input, output and error comes the
// pidfd of the process it is bound to, then the files it holds.
const (
	boundFile = spawn.FirstFile
	firstFile = spawn.FirstFile + 1
)

// Ref names a helper in a record. The start time tells it from any later
// process with the same number.
type Ref struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"start_time"`
	Files     int    `json:"files"`
}

// ErrGone means that the helper has ended, and its files are closed.
var ErrGone = errors.New("the helper process has ended")

// Request describes a helper.
type Request struct {
	// Bound is the process with which the helper ends.
	Bound *nsenter.Process
	// Model is a process to whose control groups the helper moves, nil for none: runc
	// starts CRIU and its action scripts in the container's, where the helper must not
	// stay.
	Model *nsenter.Process
	// Lifetime bounds how long the helper runs, in whole seconds.
	Lifetime time.Duration
	Files    []*os.File
	// Release is how many of the files, from the first on, are roots of autofs
	// mounts that the helper makes catatonic when it ends, unless it is stopped.
	Release int
}

// Start starts a helper. A failure to move to the control groups of the model is
// returned beside a valid Ref, as ErrNotMoved.
func Start(r Request) (Ref, error) { return r.start(r.Files, 0) }

// StartUncommitted is Start for a helper that ends with this process unless recorded is
// called first: without a record no later run could find the helper.
func StartUncommitted(r Request) (ref Ref, recorded func() error, err error) {
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

// boundTime bounds the life of a helper that is bound to this process. It is longer than
// any run.
const boundTime = 10 * time.Second

// StartBoundToSelf starts a helper that ends with this process, and then makes the autofs
// mounts of the first release files catatonic.
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
	p, err := spawn.StartSelf(args, append([]*os.File{r.Bound.Pidfd()}, files...), r.Model, capabilities)
	if err != nil {
		err = fmt.Errorf("start the helper process: %w", err)
	}
	if p == nil {
		return Ref{}, err
	}
	defer p.Close()
	return Ref{PID: p.PID(), StartTime: p.StartTime(), Files: len(files)}, err
}

// ErrNotMoved means that a helper stayed in the container's control group.
var ErrNotMoved = spawn.ErrNotMoved

// Open copies the file with the given index, in the order of Start. It stays open in the
// helper.
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

// OpenAll is Open for all files. A file that cannot be copied is nil in the list; the
// errors are joined.
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
		fd, err := sys.PidfdGetfd(p.Pidfd(), firstFile+i)
		if err != nil {
			ending = ending || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EBADF)
			errs = append(errs, fmt.Errorf("held file %d of process %d: %w", i, r.PID, err))
			continue
		}
		files[i-from] = os.NewFile(uintptr(fd), "held:"+strconv.Itoa(i))
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

// maxFiles bounds how many files a record may name.
const maxFiles = 1 << 16

// Stop ends the helper without releasing anything, and returns when its files are closed.
// A helper that has ended already is no error.
func (r Ref) Stop(ctx context.Context) error { return r.Kill()(ctx) }

// Abandon is Stop without waiting: the files are closed a little later.
func (r Ref) Abandon() error {
	p, err := r.kill()
	if p != nil {
		p.Close()
	}
	return err
}

// Kill begins to stop the helper; call wait for the rest of [Ref.Stop].
func (r Ref) Kill() (wait func(context.Context) error) {
	p, err := r.kill()
	return func(ctx context.Context) error {
		if p == nil {
			return err
		}
		defer p.Close()
		// The files are closed before the process has ended. That is soon, so the wait goes
		// on at the deadline of ctx: its error would look like that of a helper that stays.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
		defer cancel()
		return p.WaitEnd(ctx)
	}
}

// kill returns the killed process, nil if the helper has ended already or there is an
// error.
func (r Ref) kill() (*nsenter.Process, error) {
	p, err := r.process()
	if errors.Is(err, ErrGone) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := p.Signal(unix.SIGKILL); err != nil && !errors.Is(err, os.ErrNotExist) {
		p.Close()
		return nil, err
	}
	return p, nil
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

// Run runs a helper process with its arguments. It returns when the process that it is
// bound to ends, or at the end of its lifetime.
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
		_ = spawn.ConfineToWaiting()
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

// recorded waits for the process that started this one to record it; false if that
// process ended first.
func recorded(pipe int) bool {
	f := os.NewFile(uintptr(pipe), "pipe")
	defer f.Close()
	_, err := f.Read(make([]byte, 1))
	return err == nil
}

// await waits for the end of the bound process.
func await(lifetime time.Duration) error {
	if _, err := sys.Poll([]unix.PollFd{{Fd: boundFile, Events: unix.POLLIN}}, lifetime); err != nil {
		return fmt.Errorf("%s: %w", Verb, err)
	}
	return nil
}
