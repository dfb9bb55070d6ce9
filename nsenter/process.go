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
	fd, err := retryEINTR(func() (int, error) { return unix.PidfdOpen(pid, 0) })
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, notExist("pidfd_open", err))
	}
	p := &Process{pid: pid, pidfd: os.NewFile(uintptr(fd), fmt.Sprintf("pidfd:%d", pid))}
	path := "/proc/" + strconv.Itoa(pid)
	fd, err = retryEINTR(func() (int, error) {
		return unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	})
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("process %d: %w", pid, &os.PathError{Op: "open", Path: path, Err: err})
	}
	p.proc = os.NewFile(uintptr(fd), path)
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

// OpenIdentity is Open for a process that was seen before: it fails with
// fs.ErrNotExist, too, if another process has the number now.
func OpenIdentity(pid int, start uint64) (*Process, error) {
	p, err := Open(pid)
	if err != nil {
		return nil, err
	}
	if p.start != start {
		p.Close()
		return nil, fmt.Errorf("process %d: %w: another one has its number now", pid, fs.ErrNotExist)
	}
	return p, nil
}

// Close lets go of the process. It may be called more than once.
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

// Executed reports whether the process had executed a program since a fork made
// it, when it was opened. CRIU restores processes by fork alone.
func (p *Process) Executed() bool { return !p.forked }

// Identity is the process's number and start time, "123-4567": a name for
// files that belong to this process and to no later one.
func (p *Process) Identity() string { return fmt.Sprintf("%d-%d", p.pid, p.start) }

// ParseIdentity reads what [Process.Identity] writes.
func ParseIdentity(text string) (pid int, start uint64, err error) {
	number, ticks, _ := strings.Cut(text, "-")
	if pid, err = strconv.Atoi(number); err == nil {
		start, err = strconv.ParseUint(ticks, 10, 64)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("%q: want a process number and a start time: %w", text, err)
	}
	return pid, start, nil
}

// Pidfd is the process's pidfd. It is closed by Close; poll(2) reports it
// readable when the process is dead.
func (p *Process) Pidfd() *os.File { return p.pidfd }

// Alive returns nil while the process exists, else an error that is
// fs.ErrNotExist. A zombie still exists.
func (p *Process) Alive() error { return p.Signal(0) }

// Signal sends a signal to exactly this process.
func (p *Process) Signal(sig unix.Signal) error {
	err := unix.PidfdSendSignal(int(p.pidfd.Fd()), sig, nil, 0)
	if err != nil {
		return fmt.Errorf("process %d: %w", p.pid, notExist("pidfd_send_signal", err))
	}
	return nil
}

// usualSize is enough for most files of /proc/<pid> to be read by one call.
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

// Readlink reads a link of /proc/<pid>, such as "exe" or "fd/3".
func (p *Process) Readlink(name string) (string, error) {
	buf := make([]byte, 4096)
	n, err := retryEINTR(func() (int, error) { return unix.Readlinkat(int(p.proc.Fd()), name, buf) })
	if err != nil {
		return "", fmt.Errorf("process %d: %w", p.pid,
			ended(&os.PathError{Op: "readlink", Path: fmt.Sprintf("/proc/%d/%s", p.pid, name), Err: err}))
	}
	return string(buf[:n]), nil
}

// LinkMode returns the mode of a link of /proc/<pid> itself. That of "fd/3" tells
// for what the file is open: 0400 for reading, 0200 for writing (proc_pid_fd(5)).
func (p *Process) LinkMode(name string) (uint32, error) {
	var st unix.Stat_t
	_, err := retryEINTR(func() (int, error) {
		return 0, unix.Fstatat(int(p.proc.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	})
	if err != nil {
		return 0, fmt.Errorf("process %d: %w", p.pid,
			ended(&os.PathError{Op: "lstat", Path: fmt.Sprintf("/proc/%d/%s", p.pid, name), Err: err}))
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

// notExist makes "no such process" recognisable as fs.ErrNotExist.
func notExist(call string, err error) error {
	if errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("%w: no such process", fs.ErrNotExist)
	}
	return os.NewSyscallError(call, err)
}

// ended does that for files of /proc/<pid>: those that are open when the process
// ends say "no such process", those that are not do not exist.
func ended(err error) error {
	if errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("%w (%w)", err, fs.ErrNotExist)
	}
	return err
}

func retryEINTR[T any](call func() (T, error)) (T, error) {
	for {
		v, err := call()
		if !errors.Is(err, unix.EINTR) {
			return v, err
		}
	}
}

// Ended reports whether the process has ended, even if nobody has waited for it
// yet.
func (p *Process) Ended() bool {
	ended, err := p.pollEnd(0)
	return ended || err != nil
}

// EndsWithin waits for the end of the process for at most limit, and reports whether
// it came.
func (p *Process) EndsWithin(limit time.Duration) bool {
	ended, err := p.pollEnd(int(limit.Milliseconds()))
	return ended && err == nil
}

// Dying reports whether the process has been sent a SIGKILL, or has begun to end
// otherwise; a zombie has.
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
		timeout := 100 // ms; only bounds how late the end of ctx is noticed
		if deadline, ok := ctx.Deadline(); ok {
			timeout = min(timeout, int(time.Until(deadline).Milliseconds())+1)
		}
		ended, err := p.pollEnd(max(timeout, 0))
		switch {
		case err != nil || ended:
			return err
		case ctx.Err() != nil:
			return fmt.Errorf("process %d: wait for its end: %w", p.pid, context.Cause(ctx))
		}
	}
}

// pollEnd waits at most timeout milliseconds for the end of the process: its
// pidfd is readable then (pidfd_open(2)).
func (p *Process) pollEnd(timeout int) (bool, error) {
	fd := int32(p.pidfd.Fd())
	if fd < 0 {
		return false, fmt.Errorf("process %d: wait for its end: %w", p.pid, os.ErrClosed)
	}
	fds := []unix.PollFd{{Fd: fd, Events: unix.POLLIN}}
	n, err := retryEINTR(func() (int, error) { return unix.Poll(fds, timeout) })
	if err != nil {
		return false, fmt.Errorf("process %d: wait for its end: %w", p.pid, os.NewSyscallError("poll", err))
	}
	return n > 0, nil
}
