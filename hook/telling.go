package hook

import (
	"slices"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// A run that is killed while it tells systemd new device numbers leaves it open
// which ones that systemd remembers. So it leaves a mark first. While the mark
// stands, mounts are not made anew with their old numbers; systemd is told
// again, which is right whichever it remembers.

var tellingNote = noteKind{"containers", ".telling", "mark of a run that told systemd device numbers"}

// beginTelling leaves the mark.
func (s store) beginTelling(init *nsenter.Process) error {
	return tellingNote.of(s, init).write(nil)
}

// toldOrNot reports whether the mark of a run that did not end stands.
func (s store) toldOrNot(init *nsenter.Process) bool {
	return tellingNote.of(s, init).exists()
}

// knowsSystemd reports whether it is known now which numbers systemd remembers:
// all of its mounts are cured.
func (w *work) knowsSystemd() bool {
	return !slices.ContainsFunc(w.plan, func(d Decision) bool {
		return d.Cure == Unrepaired && w.snapshot.Mounts[d.Mount].Master.Kind == master.Systemd
	})
}

// endTelling takes the mark away, when it is recorded what systemd knows.
func (s store) endTelling(init *nsenter.Process) error {
	return tellingNote.of(s, init).remove()
}
