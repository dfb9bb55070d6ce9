// Package waiters finds the processes that are blocked in the kernel on an autofs mount,
// and the paths of their system calls, without walking onto any mount.
package waiters

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// maxPath bounds a path read from a process's memory, in bytes (PATH_MAX).
const maxPath = 4096

// Waiter is a thread that is blocked in autofs_wait or autofs_mount_wait.
type Waiter struct {
	PID     int    `json:"pid"` // of the thread
	Command string `json:"command"`
	// Path is the absolute path of its system call, "" if unknown. The process controls
	// the memory that it is read from, so it is only a hint.
	Path string `json:"path,omitempty"`
	// Process is the pid of the thread's process, ProcessStart the StartTime of that
	// [nsenter.Process].
	Process      int    `json:"-"`
	ProcessStart uint64 `json:"-"`
	// switches is the thread's number of voluntary context switches.
	switches string
}

// On reports whether the waiter's path is at or below the given one.
func (w Waiter) On(path string) bool {
	return w.Path == path || strings.HasPrefix(w.Path, path+"/")
}

// Find returns the waiters among the given processes. It skips processes that have ended.
func Find(pids []int) ([]Waiter, error) {
	var found []Waiter
	for _, pid := range pids {
		p, err := nsenter.Open(pid)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		found = append(found, ofProcess(p)...)
		p.Close()
	}
	return found, nil
}

func ofProcess(p *nsenter.Process) []Waiter {
	tasks, err := p.ReadDirNames("task")
	if err != nil {
		return nil
	}
	var found []Waiter
	for _, task := range tasks {
		dir := "task/" + task + "/"
		symbol, err := p.ReadFile(dir+"wchan", 1<<10)
		if err != nil || !strings.HasPrefix(string(symbol), "autofs_") {
			continue
		}
		tid, err := strconv.Atoi(task)
		if err != nil {
			continue
		}
		comm, _ := p.ReadFile(dir+"comm", 1<<10)
		w := Waiter{PID: tid, Process: p.PID(), ProcessStart: p.StartTime(), Command: strings.TrimSuffix(string(comm), "\n"), switches: voluntarySwitches(tid)}
		if name, err := pathOf(p, dir); err == nil {
			w.Path = name
		}
		found = append(found, w)
	}
	return found
}

// StillBlocked reports whether the waiter has slept since Find saw it. One that was
// released, and waits on another mount now, has gone to sleep again.
func (w Waiter) StillBlocked() bool {
	return w.switches != "" && voluntarySwitches(w.PID) == w.switches
}

// CountBlocked counts the waiters that are still blocked.
func CountBlocked(list []Waiter) int {
	n := 0
	for _, w := range list {
		if w.StillBlocked() {
			n++
		}
	}
	return n
}

// voluntarySwitches reads how often a thread has gone to sleep, "" if it has ended.
func voluntarySwitches(tid int) string {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/status")
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(status), "\nvoluntary_ctxt_switches:")
	count, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(count)
}

// pathOf reads the path argument of the blocked system call, and joins it to its
// directory argument or to the working directory.
func pathOf(p *nsenter.Process, dir string) (string, error) {
	data, err := p.ReadFile(dir+"syscall", 1<<12)
	if err != nil {
		return "", err
	}
	fields := strings.Fields(string(data))
	if len(fields) < 4 {
		return "", fmt.Errorf("process %d: not in a system call", p.PID())
	}
	number, err := strconv.Atoi(fields[0])
	if err != nil {
		return "", fmt.Errorf("process %d: system call %q: %w", p.PID(), fields[0], err)
	}
	pathArg, dirArg, ok := pathArguments(number)
	if !ok {
		return "", fmt.Errorf("process %d: the arguments of system call %d are unknown", p.PID(), number)
	}
	var args [2]uint64
	for i := range args {
		if args[i], err = strconv.ParseUint(strings.TrimPrefix(fields[1+i], "0x"), 16, 64); err != nil {
			return "", fmt.Errorf("process %d: system call argument %q: %w", p.PID(), fields[1+i], err)
		}
	}
	name, err := stringAt(p, args[pathArg])
	if err != nil || path.IsAbs(name) {
		return path.Clean(name), err
	}
	base := dir + "cwd"
	if dirArg >= 0 && int32(args[dirArg]) != unix.AT_FDCWD {
		base = "fd/" + strconv.Itoa(int(int32(args[dirArg])))
	}
	from, err := p.Readlink(base)
	if err != nil {
		return "", err
	}
	return path.Join(from, name), nil
}

// stringAt reads a zero-terminated string from the process's memory.
func stringAt(p *nsenter.Process, address uint64) (string, error) {
	f, err := p.OpenProc("mem")
	if err != nil {
		return "", err
	}
	defer f.Close()
	if address > 1<<62 {
		return "", fmt.Errorf("process %d: path at address %#x: outside of its memory", p.PID(), address)
	}
	buf := make([]byte, maxPath)
	n, err := f.ReadAt(buf, int64(address)) // a short read ends at the end of a mapping
	end := bytes.IndexByte(buf[:n], 0)
	switch {
	case end >= 0:
		return string(buf[:end]), nil
	case err != nil:
		return "", fmt.Errorf("process %d: path at address %#x: %w", p.PID(), address, err)
	}
	return "", fmt.Errorf("process %d: path at address %#x: no end within %d bytes", p.PID(), address, n)
}
