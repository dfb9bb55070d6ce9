package nsenter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
)

// Process is one particular process. It stays that process: after its death
// every method fails, even if its number has been given to another one.
type Process struct {
	pid    int
	start  uint64
	forked bool
	pidfd  *os.File
	proc   *os.File
}

// Open finds the process with the given number in the caller's pid namespace.
// It fails with fs.ErrNotExist if there is none, and refuses zero and negative
// numbers, which system calls take for process groups.
func Open(pid int) (*Process, error) {
	if pid <= 0 {
		return nil, fmt.Errorf("process %d: a process number must be positive", pid)
	}
	pidfd, err := sys.PidfdOpen(pid)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, notExist(err))
	}
	p := &Process{pid: pid, pidfd: pidfd}
	p.proc, err = sys.OpenAt(nil, "/proc/"+strconv.Itoa(pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	// The pidfd was opened first. If its process lives now, the number cannot
	// have changed hands before /proc was opened: both name the same process.
	if err := p.Alive(); err != nil {
		p.Close()
		return nil, err
	}
	start, flags, err := p.readStat()
	if err != nil {
		p.Close()
		return nil, err
	}
	p.start, p.forked = start, flags&forkedOnly != 0
	return p, nil
}

// Close closes the files of the Process. It may be called more than once.
func (p *Process) Close() error {
	var errs []error
	for _, f := range []*os.File{p.pidfd, p.proc} {
		if f != nil {
			if err := f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// PID is the process's number in the caller's pid namespace, for messages.
func (p *Process) PID() int { return p.pid }

// StartTime is the moment the process was created, in clock ticks (1/100 s)
// since boot (proc(5), /proc/pid/stat, field 22). Number and start time
// together name a process for as long as the machine runs.
func (p *Process) StartTime() uint64 { return p.start }

// Executed reports whether the process, when it was opened, had called execve(2) since
// its fork. Processes that CRIU restored have not.
func (p *Process) Executed() bool { return !p.forked }

// Pidfd is the process's pidfd, which Close closes. poll(2) reports it readable when the
// process has ended.
func (p *Process) Pidfd() *os.File { return p.pidfd }

// Alive returns nil while the process exists, else an error that is
// fs.ErrNotExist. A zombie still exists. It needs no permission to send signals.
func (p *Process) Alive() error {
	err := p.Signal(0)
	if errors.Is(err, unix.EPERM) {
		return nil // another user's, without CAP_KILL (kernel/signal.c, kill_ok_by_cred)
	}
	return err
}

// Signal sends a signal to exactly this process.
func (p *Process) Signal(sig unix.Signal) error {
	if err := sys.PidfdSignal(p.pidfd, sig); err != nil {
		return fmt.Errorf("process %d: %w", p.pid, notExist(err))
	}
	return nil
}

// usualSize is enough to read most files of /proc/<pid> with one call.
const usualSize = 2048

// ReadFile reads a file of /proc/<pid>. More than limit bytes is an error: the
// content may be chosen by the container.
func (p *Process) ReadFile(name string, limit int64) ([]byte, error) {
	f, err := p.OpenProc(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var data bytes.Buffer
	data.Grow(usualSize)
	if _, err := data.ReadFrom(io.LimitReader(f, limit+1)); err != nil {
		return nil, fmt.Errorf("process %d: %w", p.pid, ended(err))
	}
	if int64(data.Len()) > limit {
		return nil, fmt.Errorf("process %d: /proc/%d/%s: longer than %d bytes", p.pid, p.pid, name, limit)
	}
	return data.Bytes(), nil
}

// Status returns the value of one line of /proc/<pid>/status, such as "NSpid".
func (p *Process) Status(name string) (string, error) {
	data, err := p.ReadFile("status", 1<<16)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value), nil
		}
	}
	return "", fmt.Errorf("process %d: /proc/%d/status has no line %s", p.pid, p.pid, name)
}

// Capabilities returns one of the process's capability sets as a bit mask; set is a line
// of /proc/<pid>/status, such as "CapEff".
func (p *Process) Capabilities(set string) (uint64, error) {
	value, err := p.Status(set)
	if err != nil {
		return 0, err
	}
	bits, err := strconv.ParseUint(value, 16, 64)
	if err != nil {
		return 0, fmt.Errorf("process %d: /proc/%d/status: %s: %w", p.pid, p.pid, set, err)
	}
	return bits, nil
}

// Readlink reads a link of /proc/<pid>, such as "exe" or "fd/3".
func (p *Process) Readlink(name string) (string, error) {
	link, err := sys.ReadlinkAt(p.proc, name)
	if err != nil {
		return "", fmt.Errorf("process %d: %w", p.pid, ended(err))
	}
	return link, nil
}

// LinkMode returns the mode of a link of /proc/<pid> itself. That of "fd/3" tells
// for what the file is open: 0400 for reading, 0200 for writing (proc_pid_fd(5)).
func (p *Process) LinkMode(name string) (uint32, error) {
	st, err := sys.StatAt(p.proc, name, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return 0, fmt.Errorf("process %d: %w", p.pid, ended(err))
	}
	return st.Mode, nil
}

// ReadDirNames lists a directory of /proc/<pid>, such as "fd" or "task".
func (p *Process) ReadDirNames(name string) ([]string, error) {
	f, err := p.openProc(name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", p.pid, ended(err))
	}
	return names, nil
}

// Descriptors returns the numbers of the process's open files.
func (p *Process) Descriptors() ([]int, error) {
	names, err := p.ReadDirNames("fd")
	if err != nil {
		return nil, err
	}
	list := make([]int, len(names))
	for i, name := range names {
		if list[i], err = strconv.Atoi(name); err != nil {
			return nil, fmt.Errorf("process %d: /proc/%d/fd: %w", p.pid, p.pid, err)
		}
	}
	return list, nil
}

// Of a process's flags (include/linux/sched.h): PF_FORKNOEXEC, which a fork sets
// and an exec clears, and PF_EXITING.
const (
	forkedOnly = 0x40
	exiting    = 0x4
)

// readStat takes the fields 22, start time, and 9, flags, of /proc/<pid>/stat.
func (p *Process) readStat() (start, flags uint64, err error) {
	fields, err := p.statFields()
	if err != nil {
		return 0, 0, err
	}
	if start, err = strconv.ParseUint(fields[19], 10, 64); err != nil {
		return 0, 0, fmt.Errorf("process %d: /proc/%d/stat: start time: %w", p.pid, p.pid, err)
	}
	if flags, err = strconv.ParseUint(fields[6], 10, 64); err != nil {
		return 0, 0, fmt.Errorf("process %d: /proc/%d/stat: flags: %w", p.pid, p.pid, err)
	}
	return start, flags, nil
}

// statFields are the fields of /proc/<pid>/stat from the third on, at least 20
// (proc_pid_stat(5)). The second is the command name in parentheses, which may
// itself hold blanks and parentheses.
func (p *Process) statFields() ([]string, error) {
	data, err := p.ReadFile("stat", 1<<16)
	if err != nil {
		return nil, err
	}
	text := string(data)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 {
		return nil, fmt.Errorf("process %d: /proc/%d/stat: %d fields after the command, want at least 20", p.pid, p.pid, len(fields))
	}
	return fields, nil
}

// ErrNoProcess means that a process has ended, or has never existed. It is fs.ErrNotExist.
var ErrNoProcess error = endedError{unix.ESRCH}

// endedError is an error because of the end of a process, and so fs.ErrNotExist, without the
// text of that, which is about files.
type endedError struct{ error }

func (e endedError) Unwrap() error        { return e.error }
func (e endedError) Is(target error) bool { return target == fs.ErrNotExist }

// notExist makes ESRCH recognisable as fs.ErrNotExist.
func notExist(err error) error {
	if errors.Is(err, unix.ESRCH) {
		return ErrNoProcess
	}
	return err
}

// ended does the same for files of /proc/<pid>, and keeps their error: after the end of
// the process, files that are open give ESRCH, and others do not exist.
func ended(err error) error {
	if errors.Is(err, unix.ESRCH) {
		return endedError{err}
	}
	return err
}

// Ended reports whether the process has ended; a zombie has.
func (p *Process) Ended() bool {
	ended, err := p.pollEnd(0)
	return ended || err != nil
}

// EndsWithin waits for the end of the process for at most limit, and reports whether
// it came.
func (p *Process) EndsWithin(limit time.Duration) bool {
	ended, err := p.pollEnd(limit)
	return ended && err == nil
}

// Dying reports whether the process has a SIGKILL pending or is exiting; a zombie is.
func (p *Process) Dying() bool {
	for _, name := range []string{"SigPnd", "ShdPnd"} {
		value, err := p.Status(name)
		if err != nil {
			return p.Ended()
		}
		const kill = 1 << (unix.SIGKILL - 1)
		if pending, err := strconv.ParseUint(value, 16, 64); err == nil && pending&kill != 0 {
			return true
		}
	}
	_, flags, err := p.readStat()
	return err != nil || flags&exiting != 0
}

// WaitEnd returns nil when the process has ended, or ctx's error.
func (p *Process) WaitEnd(ctx context.Context) error {
	for {
		timeout := 100 * time.Millisecond // only bounds how late the end of ctx is noticed
		if deadline, ok := ctx.Deadline(); ok {
			timeout = min(timeout, time.Until(deadline))
		}
		ended, err := p.pollEnd(timeout)
		switch {
		case err != nil || ended:
			return err
		case ctx.Err() != nil:
			return fmt.Errorf("process %d: wait for its end: %w", p.pid, context.Cause(ctx))
		}
	}
}

// pollEnd waits for the end of the process, which makes its pidfd readable
// (pidfd_open(2)).
func (p *Process) pollEnd(timeout time.Duration) (bool, error) {
	fd := int32(p.pidfd.Fd())
	if fd < 0 {
		return false, fmt.Errorf("process %d: wait for its end: %w", p.pid, os.ErrClosed)
	}
	n, err := sys.Poll([]unix.PollFd{{Fd: fd, Events: unix.POLLIN}}, timeout)
	if err != nil {
		return false, fmt.Errorf("process %d: wait for its end: %w", p.pid, err)
	}
	return n > 0, nil
}
