package cure

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/systemd"
)

// answerTime is how long a systemd may take to queue the jobs of earlier requests.
const answerTime = 2 * time.Second

// minVersion is the oldest version of systemd whose state is corrected. An older one
// ignores the rest of the state after a section that it cannot read
// (manager_deserialize), and before 233 the state is not in a memfd.
const minVersion = 235

// reexecuteAll makes each systemd re-execute itself that may remember other device numbers.
// Its state then decides about its mounts, instead of the plan. It reports whether a
// re-execution was planned.
func (r *Repair) reexecuteAll(ctx context.Context) bool {
	done := map[int]bool{}
	for _, i := range r.mountsWith(plan.Reexecuted) {
		if m := &r.snapshot.Mounts[i]; m.Main && !done[m.Master.PID] {
			done[m.Master.PID] = true
			r.reexecuteAndDecide(ctx, m.Master.PID)
		}
	}
	return len(done) > 0
}

// reexecuteAndDecide makes a systemd re-execute itself, decides about its mounts, and makes
// it answer earlier requests.
func (r *Repair) reexecuteAndDecide(ctx context.Context, pid int) {
	var list []int
	var served []systemd.ServedMount
	for i := range r.snapshot.Mounts {
		m := &r.snapshot.Mounts[i]
		if m.Main && m.Master.Kind == master.Systemd && m.Master.PID == pid {
			list = append(list, i)
			served = append(served, systemd.ServedMount{Path: m.Path, Pipe: m.Options.PipeInode, Device: m.Device})
		}
	}
	version, err := r.container.Version(ctx, pid)
	if err != nil {
		for _, i := range list {
			r.setDecision(i, plan.Decision{Cure: plan.Unrepaired, Reason: err.Error(), Unjudged: !r.snapshot.Restore})
		}
		return
	}
	socket := systemd.SocketID(r.container.Masters[pid].Process)
	edit, err := r.reexecuteManager(ctx, pid, version, served)
	if err != nil {
		for _, i := range list {
			r.restartInstead(i, err.Error())
		}
	} else {
		r.decideFromState(list, edit)
	}
	if errors.Is(err, systemd.ErrRefused) {
		return
	}
	r.container.ForgetManager(pid) // its connection is broken
	if err == nil {
		r.container.AwaitSocket(ctx, pid, socket)
	}
	if err := r.container.AwaitManager(ctx, pid); err != nil {
		r.warn(err)
		return
	}
	if edit != nil {
		r.answerRequests(ctx, pid, edit)
	}
}

// reexecuteManager makes a systemd of the given version re-execute itself with corrected
// device numbers of the served mounts. The error is systemd.ErrRefused if that was not
// tried.
func (r *Repair) reexecuteManager(ctx context.Context, pid, version int, served []systemd.ServedMount) (*systemd.StateEdit, error) {
	if version < minVersion {
		return nil, fmt.Errorf("%w: it is version %d, older than %d", systemd.ErrRefused, version, minVersion)
	}
	return systemd.Reexecute(ctx, r.container.Masters[pid], systemd.ReexecuteOptions{
		Version: version, Served: served, Replaced: r.snapshot.ReexecuteReplaced,
	})
}

// decideFromState revises the decisions about mounts of a systemd by its state. list are
// their indices.
func (r *Repair) decideFromState(list []int, edit *systemd.StateEdit) {
	units := make(map[uint64]*systemd.UnitState, len(edit.Units))
	for i := range edit.Units {
		units[edit.Units[i].Pipe] = &edit.Units[i]
	}
	for _, i := range list {
		m, d := &r.snapshot.Mounts[i], &r.Plan[i]
		u := units[m.Options.PipeInode]
		if u != nil {
			m.Master.Unit = u.Unit
		}
		switch {
		case u == nil && d.Cure == plan.Reexecuted:
			d.Cure, d.Reason = plan.Unrepaired, "no active .automount unit of its systemd has its pipe: start the unit in the container"
		case u == nil:
		case u.Problem != "":
			if d.Cure == plan.Reexecuted {
				d.Cure, d.Reason = plan.Unrepaired, u.Problem
			}
		case u.Corrected():
			if m.NotPreserved == "" {
				d.Reason = "systemd remembered device " + mounts.DeviceString(u.OldDevice)
			}
			d.Cure, m.DeviceBefore = plan.Reexecuted, u.OldDevice
		default:
			m.DeviceBefore, m.Confirmed = u.OldDevice, true
			if d.Cure != plan.Preserved {
				d.Cure, d.Reason = plan.Healthy, "systemd remembers its device: nothing had to be corrected"
			}
		}
		r.copyDecision(i)
	}
}

// copyDecision copies the decision about mount i of the main namespace to the mounts of
// other namespaces with the same superblock.
func (r *Repair) copyDecision(i int) {
	main := &r.snapshot.Mounts[i]
	for j := range r.Plan {
		m := &r.snapshot.Mounts[j]
		if m.Main || m.Master.Kind != master.Systemd || m.Device != main.Device {
			continue
		}
		if r.Plan[j].Cure == plan.Reexecuted || r.Plan[i].Cure == plan.Reexecuted {
			r.Plan[j].Cure, m.Confirmed = r.Plan[i].Cure, main.Confirmed
		}
		m.DeviceBefore, m.Master.Unit = main.DeviceBefore, main.Master.Unit
	}
}

// answerRequests starts the mount units of earlier requests that systemd could not answer.
// systemd answers them when the mount is up, which may take long, as of a file server.
func (r *Repair) answerRequests(ctx context.Context, pid int, edit *systemd.StateEdit) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	for i := range edit.Units {
		u := &edit.Units[i]
		if u.Waiting || u.Corrected() && r.hasWaiter(u) {
			if err := r.container.Managers[pid].StartMount(ctx, u.Unit); err != nil {
				r.warn(fmt.Errorf("%q: answer its waiters: %w", u.Unit, err))
			}
		}
	}
}

// hasWaiter reports whether the mount of a unit has a waiter.
func (r *Repair) hasWaiter(u *systemd.UnitState) bool {
	for i := range r.snapshot.Mounts {
		m := &r.snapshot.Mounts[i]
		if m.Main && m.Options.PipeInode == u.Pipe && len(container.WaitersOn(r.snapshot.Waiters, m.Path)) > 0 {
			return true
		}
	}
	return false
}

// restartInstead plans a restart for mount i, whose systemd cannot be re-executed, in every
// namespace that shows it. If it is not known to be stale it becomes unrepaired.
func (r *Repair) restartInstead(i int, reason string) {
	d := plan.Decision{Cure: plan.Unrepaired, Reason: reason}
	switch m := &r.snapshot.Mounts[i]; {
	case r.snapshot.Strategy == container.ReexecOnly:
	case m.Master.Nested:
		d.Reason += "; " + plan.NestedReason(m)
	case r.snapshot.Mounts[i].DeviceBefore != 0:
		d.Cure = plan.Restarted
	default:
		d.Unjudged = true
		d.Reason += fmt.Sprintf("; whether systemd knows its device is unknown: if accesses hang, run \"autofs-restore-hook repair %d --strategy restart\"",
			r.snapshot.PID)
	}
	r.setDecision(i, d)
}

// setDecision replaces the planned re-execution for mount i, in every namespace that shows it.
func (r *Repair) setDecision(i int, decision plan.Decision) {
	if r.Plan[i].Cure != plan.Reexecuted {
		return
	}
	device := r.snapshot.Mounts[i].Device
	for j := range r.Plan {
		d, m := &r.Plan[j], &r.snapshot.Mounts[j]
		if d.Cure == plan.Reexecuted && m.Device == device {
			*d = decision
			d.Reason = strings.TrimPrefix(m.NotPreserved+"; "+decision.Reason, "; ")
		}
	}
}
