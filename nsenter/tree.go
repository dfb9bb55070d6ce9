package nsenter

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxDescendants bounds the walk over a process tree that a container shapes.
const maxDescendants = 1 << 16

// Descendants returns the numbers of the process and of all processes below
// it, the process itself first. It reads /proc/<pid>/task/*/children and so
// costs nothing for the host's other processes. A process that entered the
// container from outside (setns) is not below its init process: see
// [Process.Members].
func (p *Process) Descendants() ([]int, error) {
	found := []int{p.pid}
	seen := map[int]bool{p.pid: true}
	for i := 0; i < len(found); i++ {
		children, err := childrenOf(found[i])
		if err != nil {
			if i > 0 && isGone(err) {
				continue // it ended; its children went to a process that is visited anyway
			}
			return nil, err
		}
		for _, child := range children {
			if !seen[child] {
				seen[child] = true
				found = append(found, child)
			}
		}
		if len(found) > maxDescendants {
			return nil, fmt.Errorf("process %d: more than %d processes below it", p.pid, maxDescendants)
		}
	}
	return found, nil
}

// Members returns the numbers of all processes on the host that are in the
// process's pid namespace, and of those below the process. It reads all of /proc, which
// is too slow for every restore. Without a pid namespace of its own only the processes
// below it are returned.
func (p *Process) Members() ([]int, error) {
	found, err := p.Descendants()
	if err != nil {
		return nil, err
	}
	target, err := p.Readlink("ns/pid")
	if err != nil {
		return nil, err
	}
	own, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return nil, fmt.Errorf("own pid namespace: %w", err)
	}
	if target == own {
		return found, nil
	}
	seen := make(map[int]bool, len(found))
	for _, pid := range found {
		seen[pid] = true
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || seen[pid] {
			continue
		}
		if link, err := os.Readlink("/proc/" + e.Name() + "/ns/pid"); err == nil && link == target {
			found = append(found, pid)
		}
	}
	return found, nil
}

// OpenParent opens the process's current parent, which changes when a parent ends; nil if
// that is not in the caller's pid namespace, as for PID 1.
func (p *Process) OpenParent() (*Process, error) {
	for {
		number, err := p.parent()
		if err != nil || number == 0 {
			return nil, err
		}
		parent, err := Open(number)
		if err != nil && !isGone(err) {
			return nil, err
		}
		// The number is the parent's if it was before and after the process was opened.
		now, nowErr := p.parent()
		switch {
		case err == nil && nowErr == nil && now == number && parent.Alive() == nil:
			return parent, nil
		case err == nil:
			parent.Close()
		}
		if nowErr != nil {
			return nil, nowErr
		}
	}
}

// parent is field 4 of /proc/<pid>/stat (proc_pid_stat(5)).
func (p *Process) parent() (int, error) {
	fields, err := p.statFields()
	if err != nil {
		return 0, err
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0, fmt.Errorf("process %d: /proc/%d/stat: parent: %w", p.pid, p.pid, err)
	}
	return parent, nil
}

// childrenOf reads the children of every thread of a process.
func childrenOf(pid int) ([]int, error) {
	dir := "/proc/" + strconv.Itoa(pid) + "/task"
	tasks, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list threads: %w", err)
	}
	var children []int
	for _, t := range tasks {
		data, err := os.ReadFile(dir + "/" + t.Name() + "/children")
		if err != nil {
			if isGone(err) {
				continue
			}
			return nil, fmt.Errorf("list children: %w", err)
		}
		for _, word := range strings.Fields(string(data)) {
			child, err := strconv.Atoi(word)
			if err != nil {
				return nil, fmt.Errorf("list children: %s/%s/children: %w", dir, t.Name(), err)
			}
			children = append(children, child)
		}
	}
	return children, nil
}

// isGone reports that a process ended while its files were read.
func isGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
}
