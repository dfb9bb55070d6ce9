package container

import (
	"math"
	"strconv"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Restored reports whether CRIU has created the process: CRIU forks processes and does
// not execute their programs, as a runtime does at a fresh start. A systemd that has
// re-executed itself has "--deserialize" among its arguments; then its oldest child
// decides, which CRIU has created at the same time. In doubt the result is true.
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
		return true // unknown: a needless re-execution does no harm
	}
	oldest, forked := uint64(math.MaxUint64), true
	for word := range strings.FieldsSeq(string(children)) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			continue
		}
		child, err := nsenter.Open(pid)
		if err != nil {
			continue // it has ended
		}
		// The kernel lists children in the order of their creation: of several with the
		// same start time, which is in clock ticks, the first is the oldest.
		if start := child.StartTime(); start < oldest {
			oldest, forked = start, !child.Executed()
		}
		child.Close()
	}
	return forked
}

// MarkRestored sets Restored and Waited of each systemd master.
func (c *Container) MarkRestored(snapshot *Snapshot) {
	restored := map[int]bool{} // by pid
	waited := map[int]bool{}
	for i := range snapshot.Mounts {
		m := &snapshot.Mounts[i]
		if m.Master.Kind != master.Systemd {
			continue
		}
		if _, seen := restored[m.Master.PID]; !seen && c.Masters[m.Master.PID] != nil {
			restored[m.Master.PID] = Restored(c.Masters[m.Master.PID].Process)
		}
		if len(WaitersOn(snapshot.Waiters, m.Path)) > 0 {
			waited[m.Master.PID] = true
		}
	}
	for i := range snapshot.Mounts {
		m := &snapshot.Mounts[i].Master
		m.Restored, m.Waited = restored[m.PID], waited[m.PID]
	}
}
