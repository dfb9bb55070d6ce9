package systemd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/owner"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/ptrace"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
	"golang.org/x/sys/unix"
)

const (
	// stateName is the name of the memfd that systemd writes its state to
	// (src/core/main.c, prepare_reexecute; open_serialization_fd).
	stateName = "/memfd:systemd-state (deleted)"
	// maxState bounds that state, in bytes: 2,000 units take about 1 MB.
	maxState = 64 << 20
	// reexecTime bounds how long systemd may take until its state can be corrected:
	// 1.3 ms for version 262, 30 to 50 ms for version 252; up to 5 s for several
	// containers at once where other processes use all processors. The rest of a run's
	// 8 s is for its units' restart, if it does not re-execute itself at all.
	reexecTime = 6 * time.Second
	// firstSealing is the first version of systemd that seals its state before it
	// executes itself (src/shared/serialize.c, finish_serialization_file). 257 does
	// not, 262 does (measured). A wrong guess for a version only costs time.
	firstSealing = 258
)

// ErrRefused means that systemd cannot or must not re-execute itself; no attempt was
// made.
var ErrRefused = errors.New("systemd cannot re-execute itself safely")

// ReexecuteOptions is how a systemd re-executes itself.
type ReexecuteOptions struct {
	// Version is systemd's.
	Version int
	// Served are the autofs mounts whose pipes it reads, in its own mount namespace.
	Served []ServedMount
	// Replaced allows it to load another version of its program, installed since its
	// start.
	Replaced bool
}

// errSealed means that a systemd older than firstSealing seals its state.
var errSealed = errors.New("its state is sealed before it executes itself")

// Reexecute makes a systemd re-execute itself, and corrects the device numbers of its
// automounts in its state. On SIGTERM systemd re-executes itself, as it does when its
// package is upgraded: it writes its state to a memfd and reads it back. In between it is
// stopped, and its state is compared with the mounts. Nothing else about systemd or
// its units changes. Connections to it break.
func Reexecute(ctx context.Context, systemd *owner.Member, how ReexecuteOptions) (*StateEdit, error) {
	pid1 := systemd.Process
	err := systemd.Check()
	if err == nil {
		err = canReexecute(pid1, how.Replaced)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, reexecTime, fmt.Errorf("it did not re-execute itself within %s", reexecTime))
	defer cancel()
	type answer struct {
		edit *StateEdit
		err  error
	}
	done := make(chan answer, 1)
	nsenter.GoThread(func() { // the tracer is a thread, not a process (ptrace(2))
		edit, err := reexecute(ctx, pid1, how, how.Version >= firstSealing)
		if errors.Is(err, errSealed) {
			edit, err = reexecute(ctx, pid1, how, true)
		}
		done <- answer{edit, err}
	})
	a := <-done
	if a.err != nil {
		return nil, fmt.Errorf("systemd did not re-execute itself, or its state could not be corrected: %w", a.err)
	}
	return a.edit, nil
}

func reexecute(ctx context.Context, pid1 *nsenter.Process, how ReexecuteOptions, seals bool) (edit *StateEdit, err error) {
	t, err := ptrace.Seize(ctx, pid1)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.Release(ctx)) }()
	if err := pid1.Signal(unix.SIGTERM); err != nil {
		return nil, err
	}
	fd, err := runToState(ctx, t, seals)
	if err != nil {
		return nil, err
	}
	edit, err = correct(pid1, fd, how)
	if errors.Is(err, unix.EPERM) && !seals { // memfd_create(2), File sealing
		err = fmt.Errorf("%w: %w", errSealed, err)
	}
	return edit, err
}

// runToState runs systemd until its state is complete and still writable: before it
// seals the file or, in versions that do not, after its exec. Only a version that seals
// is stopped at each system call. It returns the descriptor of the file.
func runToState(ctx context.Context, t *ptrace.Tracer, seals bool) (int, error) {
	run := t.ToEvent
	if seals {
		run = t.ToSystemCall
	}
	var signal unix.Signal
	for {
		if err := run(signal); err != nil {
			return -1, err
		}
		status, err := t.Wait(ctx)
		if err != nil {
			return -1, err
		}
		if ptrace.IsExec(status) {
			return findState(t.Process)
		}
		signal = ptrace.SignalOf(status)
		if number, args, entered := t.Entry(); entered && number == unix.SYS_FCNTL && args[1] == unix.F_ADD_SEALS {
			if fd := int(int32(args[0])); isState(t.Process, fd) {
				return fd, nil
			}
		}
	}
}

func findState(p *nsenter.Process) (int, error) {
	files, err := p.Descriptors()
	if err != nil {
		return -1, err
	}
	for _, fd := range files {
		if isState(p, fd) {
			return fd, nil
		}
	}
	return -1, fmt.Errorf("process %d has no file %s", p.PID(), stateName)
}

// correct appends the corrections to the state, and checks that nothing else changed. It
// is one write: if this program is killed, systemd finds its state either unchanged or
// corrected (see paged for more than a page of corrections).
func correct(p *nsenter.Process, fd int, how ReexecuteOptions) (*StateEdit, error) {
	f, err := openState(p, fd)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := readState(f)
	if err != nil {
		return nil, err
	}
	edit, err := editState(text, how.Version, how.Served, func(fd int) (uint64, error) { return master.PipeAt(p, fd) })
	if err != nil || len(edit.Addition) == 0 {
		return edit, err
	}
	if err := add(f, text, edit.Addition); err != nil {
		return nil, errors.Join(err, f.Truncate(int64(len(text))))
	}
	return edit, nil
}

// add appends to the text.
func add(f *os.File, text, addition []byte) error {
	if _, err := f.WriteAt(addition, int64(len(text))); err != nil {
		return fmt.Errorf("correct systemd's state: %w", err)
	}
	written, err := readState(f)
	if err != nil {
		return err
	}
	if rest, same := bytes.CutPrefix(written, text); !same || !bytes.Equal(rest, addition) {
		return errors.New("correct systemd's state: it reads back differently")
	}
	return nil
}

func readState(f *os.File) ([]byte, error) {
	text, err := io.ReadAll(io.NewSectionReader(f, 0, maxState+1))
	if err != nil {
		return nil, fmt.Errorf("read systemd's state: %w", err)
	}
	if len(text) > maxState {
		return nil, fmt.Errorf("read systemd's state: longer than %d bytes", maxState)
	}
	return text, nil
}
