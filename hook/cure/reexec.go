package cure

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/systemd"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
)

// answerTime bounds how long a systemd may take to answer the requests that it
// took before: a mount over a network may not come.
const answerTime = 2 * time.Second

// oldestReexecuted is the oldest version of systemd whose state is corrected. An
// older one gives up all the rest at a section that it cannot read
// (manager_deserialize), and before 233 the state is no memory file.
const oldestReexecuted = 235

// reexecuteAll has each systemd re-execute itself that may remember other device
// numbers. What it remembers decides, whatever was planned. It reports whether
// anything was tried.
func (w *Repair) reexecuteAll(ctx context.Context) bool {
	done := map[int]bool{}
	for _, i := range w.mountsWith(plan.Reexecuted) {
		if m := &w.snapshot.Mounts[i]; m.Main && !done[m.Master.PID] {
			done[m.Master.PID] = true
			w.reexecuteAndDecide(ctx, m.Master.PID)
		}
	}
	return len(done) > 0
}

func (w *Repair) reexecuteAndDecide(ctx context.Context, pid int) {
	var list []int
	var served []systemd.Served
	for i := range w.snapshot.Mounts {
		m := &w.snapshot.Mounts[i]
		if m.Main && m.Master.Kind == master.Systemd && m.Master.PID == pid {
			list = append(list, i)
			served = append(served, systemd.Served{Path: m.Path, Pipe: m.Options.PipeInode, Device: m.Device})
		}
	}
	version, err := w.container.Version(ctx, pid)
	if err != nil {
		reason := err.Error()
		if !w.snapshot.Restore {
			reason = plan.CannotJudge + ": " + reason
		}
		for _, i := range list {
			w.setCure(i, plan.Unrepaired, reason)
		}
		return
	}
	edit, err := w.reexecuteManager(ctx, pid, version, served)
	if err != nil {
		for _, i := range list {
			w.restartInstead(i, err.Error())
		}
	} else {
		w.decideFromState(list, edit)
	}
	if errors.Is(err, systemd.ErrRefused) {
		return
	}
	w.container.ForgetManager(pid) // its connection is broken
	if err := w.container.AwaitManager(ctx, pid); err != nil {
		w.warn(err)
		return
	}
	if edit != nil {
		w.answerRequests(ctx, pid, edit)
	}
}

func (w *Repair) reexecuteManager(ctx context.Context, pid, version int, served []systemd.Served) (*systemd.StateEdit, error) {
	if version < oldestReexecuted {
		return nil, fmt.Errorf("%w: it is version %d, older than %d", systemd.ErrRefused, version, oldestReexecuted)
	}
	return systemd.Reexecute(ctx, w.container.Masters[pid], systemd.Reexecution{
		Version: version, Served: served, Replaced: w.snapshot.ReexecuteReplaced,
	})
}

// decideFromState decides about the mounts of a systemd by its state.
func (w *Repair) decideFromState(list []int, edit *systemd.StateEdit) {
	units := make(map[uint64]*systemd.UnitState, len(edit.Units))
	for i := range edit.Units {
		units[edit.Units[i].Pipe] = &edit.Units[i]
	}
	for _, i := range list {
		m, d := &w.snapshot.Mounts[i], &w.Plan[i]
		u := units[m.Options.PipeInode]
		if u != nil {
			m.Master.Unit = u.Unit
		}
		switch {
		case u == nil && d.Cure == plan.Reexecuted:
			d.Cure, d.Reason = plan.Unrepaired, "no active .automount unit of its systemd has its pipe: start it in the container"
		case u == nil:
		case u.Problem != "":
			if d.Cure == plan.Reexecuted {
				d.Cure, d.Reason = plan.Unrepaired, u.Problem
			}
		case u.Corrected():
			if m.NotPreserved == "" {
				d.Reason = "systemd remembered device " + mounts.DeviceString(u.Was)
			}
			d.Cure, m.DeviceBefore = plan.Reexecuted, u.Was
		default:
			m.DeviceBefore, m.Confirmed = u.Was, true
			if d.Cure != plan.Preserved {
				d.Cure, d.Reason = plan.Healthy, "nothing had to be corrected: systemd remembers its device"
			}
		}
		w.copyDecision(i)
	}
}

// copyDecision decides about the mounts of other namespaces as about the one of the
// main namespace that they show.
func (w *Repair) copyDecision(i int) {
	main := &w.snapshot.Mounts[i]
	for j := range w.Plan {
		m := &w.snapshot.Mounts[j]
		if m.Main || m.Master.Kind != master.Systemd || m.Device != main.Device {
			continue
		}
		if w.Plan[j].Cure == plan.Reexecuted || w.Plan[i].Cure == plan.Reexecuted {
			w.Plan[j].Cure, m.Confirmed = w.Plan[i].Cure, main.Confirmed
		}
		m.DeviceBefore, m.Master.Unit = main.DeviceBefore, main.Master.Unit
	}
}

// answerRequests has systemd answer the requests that it took while it could not. It
// does when the mount comes up.
func (w *Repair) answerRequests(ctx context.Context, pid int, edit *systemd.StateEdit) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	for i := range edit.Units {
		u := &edit.Units[i]
		if u.Waiting || u.Corrected() && w.hasWaiter(u) {
			if err := w.container.Managers[pid].StartMount(ctx, u.Unit); err != nil {
				w.warn(fmt.Errorf("%q: answer the processes that wait: %w", u.Unit, err))
			}
		}
	}
}

// hasWaiter reports whether a process waits on the mount of a unit.
func (w *Repair) hasWaiter(u *systemd.UnitState) bool {
	for i := range w.snapshot.Mounts {
		m := &w.snapshot.Mounts[i]
		if m.Main && m.Options.PipeInode == u.Pipe && len(container.WaitersOn(w.snapshot.Waiters, m.Path)) > 0 {
			return true
		}
	}
	return false
}

// restartInstead plans a restart for a mount whose systemd cannot be re-executed,
// if it is known to be stale, in every namespace that shows it.
func (w *Repair) restartInstead(i int, reason string) {
	cure := plan.Unrepaired
	switch m := &w.snapshot.Mounts[i]; {
	case w.snapshot.Strategy == container.ReexecOnly:
	case m.Master.Nested:
		reason += "; " + plan.RestartThere(m)
	case w.snapshot.Mounts[i].DeviceBefore != 0:
		cure = plan.Restarted
	default:
		reason = plan.CannotJudge + ": " + reason + fmt.Sprintf("; whether systemd knows its device is unknown: if accesses hang, run \"autofs-restore-hook repair %d --strategy restart\"",
			w.snapshot.PID)
	}
	w.setCure(i, cure, reason)
}

// setCure plans another cure for a mount whose systemd was to re-execute itself, in
// every namespace that shows it.
func (w *Repair) setCure(i int, cure plan.Cure, reason string) {
	if w.Plan[i].Cure != plan.Reexecuted {
		return
	}
	device := w.snapshot.Mounts[i].Device
	for j := range w.Plan {
		d, m := &w.Plan[j], &w.snapshot.Mounts[j]
		if d.Cure == plan.Reexecuted && m.Device == device {
			d.Cure, d.Reason = cure, strings.TrimPrefix(m.NotPreserved+"; "+reason, "; ")
		}
	}
}
