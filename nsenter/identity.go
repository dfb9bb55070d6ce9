package nsenter

import (
	"fmt"
	"strconv"
	"strings"
)

// Identity is the process's number and start time, "123-4567": a name for
// files that belong to this process and to no later one.
func (p *Process) Identity() string { return fmt.Sprintf("%d-%d", p.pid, p.start) }

// ParseIdentity reads what [Process.Identity] writes.
func ParseIdentity(text string) (pid int, start uint64, err error) {
	number, ticks, _ := strings.Cut(text, "-")
	if pid, err = strconv.Atoi(number); err == nil {
		start, err = strconv.ParseUint(ticks, 10, 64)
	}
	if err == nil && pid <= 0 {
		err = strconv.ErrRange
	}
	if err != nil {
		return 0, 0, fmt.Errorf("%q: want a process number and a start time: %w", text, err)
	}
	return pid, start, nil
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
		return nil, fmt.Errorf("process %d: %w: another one has its number now", pid, ErrNoProcess)
	}
	return p, nil
}
