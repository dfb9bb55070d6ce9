package container

import (
	"math"
	"strconv"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Restored reports whether CRIU has made the process: it forks processes and does
// not execute their programs, as a runtime does at a fresh start. A systemd that
// has re-executed itself looks like a fresh one. Its arguments say so, and then
// its oldest child tells: a restore makes the children at once.
func Restored(p *nsenter.Process) bool {
	if !p.Executed() {
		return true
	}
	if arguments, err := p.ReadFile("cmdline", 1<<20); err != nil || !strings.Contains(string(arguments), "\x00--deserialize") {
		return false
	}
	number := strconv.Itoa(p.PID())
	children, err := p.ReadFile("task/"+number+"/children", 1<<20)
	if err != nil {
		return true // unknown: a question too many does no harm
	}
	oldest, forked := uint64(math.MaxUint64), true
	for word := range strings.FieldsSeq(string(children)) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			continue
		}
		child, err := nsenter.Open(pid)
		if err != nil {
			continue // ended meanwhile
		}
		// Of several in a tick of the clock the first is the oldest: the kernel lists
		// children in the order in which they came.
		if start := child.StartTime(); start < oldest {
			oldest, forked = start, !child.Executed()
		}
		child.Close()
	}
	return forked
}

// MarkRestored notes which systemds were restored, which may remember other numbers,
// and on whose mounts a process waits, which is a reason to ask them again.
func (c *Container) MarkRestored(snapshot *Snapshot) {
	known := map[int]bool{}
	waited := map[int]bool{}
	for i := range snapshot.Mounts {
		m := &snapshot.Mounts[i]
		if m.Master.Kind != master.Systemd {
			continue
		}
		if _, seen := known[m.Master.PID]; !seen && c.Masters[m.Master.PID] != nil {
			known[m.Master.PID] = Restored(c.Masters[m.Master.PID].Process)
		}
		if len(WaitersOn(snapshot.Waiters, m.Path)) > 0 {
			waited[m.Master.PID] = true
		}
	}
	for i := range snapshot.Mounts {
		m := &snapshot.Mounts[i].Master
		m.Restored, m.Waited = known[m.PID], waited[m.PID]
	}
}
