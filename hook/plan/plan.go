package plan

import (
	"cmp"
	"fmt"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
)

// Cure is what is done for a mount, the mildest first.
type Cure string

const (
	// Healthy means that the master knows the mount as it is; nothing to do.
	Healthy Cure = "healthy"
	// Preserved means that the mount was recreated with the device number that its
	// master remembers.
	Preserved Cure = "preserved"
	// Reexecuted means that systemd remembered another device number, and that
	// this was corrected when it re-executed itself; nothing else changed.
	Reexecuted Cure = "reexecuted"
	// Restarted means that the systemd unit is restarted, and what covered it kept.
	Restarted Cure = "restarted"
	// Reloaded means that the automount daemon has mounted its trigger again, on SIGHUP.
	Reloaded Cure = "reloaded"
	// Unrepaired means that it stays as it is, for the reason given.
	Unrepaired Cure = "unrepaired"
)

// Decision is the cure for one mount of a snapshot, and why.
type Decision struct {
	Mount  int // index in Snapshot.Mounts
	Cure   Cure
	Reason string
}

// New decides for each mount of a snapshot what is to be done. It only thinks:
// the same snapshot always gives the same plan.
func New(s *container.Snapshot) []Decision {
	decisions := make([]Decision, len(s.Mounts))
	main := map[uint64]Cure{} // of the superblocks that the main namespace shows
	for i := range s.Mounts {
		m := &s.Mounts[i]
		cure, reason := decide(s, m)
		if cure == Restarted && m.Master.Nested {
			cure, reason = Unrepaired, RestartThere(m)
		}
		decisions[i] = Decision{Mount: i, Cure: cure, Reason: reason}
		if m.Main {
			main[m.Device] = cure
		}
	}
	for i := range s.Mounts {
		m, d := &s.Mounts[i], &decisions[i]
		if m.Main || d.Cure != Restarted && d.Cure != Reexecuted && d.Cure != Reloaded {
			continue
		}
		cure, shown := main[m.Device]
		switch {
		case shown:
			d.Cure, d.Reason = cure, fmt.Sprintf("it shows the mount in the mount namespace of its %s", m.Master.Kind)
		case d.Cure != Reloaded: // a trigger may be there with another number
			d.Cure = Unrepaired
			d.Reason = "systemd renews mounts in its own mount namespace only, which does not show this one"
		}
	}
	return decisions
}

// RestartThere says why a unit is not restarted: what covers its mount is only kept
// in the mount namespace of the container's first process.
func RestartThere(m *container.Mount) string {
	return fmt.Sprintf("it belongs to a systemd in a container inside the container (process %d): run \"systemctl restart %s\" there", m.Master.PID, m.Master.Unit)
}

func decide(s *container.Snapshot, m *container.Mount) (Cure, string) {
	switch m.Master.Kind {
	case master.Outside:
		return Healthy, "served from outside the container"
	case master.Systemd:
		return decideSystemd(s, m)
	case master.Automount:
		return decideAutomount(s, m)
	case master.Other:
		if m.Master.HoldsRoot {
			return Healthy, "its master holds the mount open and answers through that"
		}
		return Unrepaired, fmt.Sprintf("process %d serves it, which is neither systemd nor automount: if accesses hang, restart that process", m.Master.PID)
	case master.None:
	}
	if m.Options.Catatonic() {
		return Healthy, "no process serves it: it was catatonic before"
	}
	return Unrepaired, "no process reads its pipe: start the program that served it"
}

// decideSystemd decides whether systemd is to re-execute itself. What it remembers
// shows only then, and is what decides in the end.
func decideSystemd(s *container.Snapshot, m *container.Mount) (Cure, string) {
	switch {
	case s.Strategy == container.ReexecOnly:
		return Reexecuted, cmp.Or(m.NotPreserved, "as demanded, if systemd remembers another device")
	case m.Preserved: // and settled, since the same moment
		return Preserved, "it has the device number that systemd remembers"
	case m.Confirmed && (s.Restore || !m.Master.Waited): // a cache: a waiter is a reason to ask
		return Healthy, "an earlier run repaired it"
	case m.HasOldNumber():
		return Healthy, "it came back with its old device number"
	case !s.Restore && !m.Master.Restored && len(container.WaitersOn(s.Waiters, m.Path)) > 0:
		return Unrepaired, fmt.Sprintf("%s: a process waits on it, perhaps for a slow server: its systemd was started here, not restored; if nothing comes, run \"autofs-restore-hook repair --strategy reexec %d\"", CannotJudge, s.PID)
	case !s.Restore && !m.Master.Restored:
		return Healthy, "its systemd was started here, not restored"
	}
	reason := m.NotPreserved
	switch {
	case reason != "":
	case m.DeviceBefore != 0:
		reason = "it was device " + mounts.DeviceString(m.DeviceBefore)
	case s.Strategy != container.RestartOnly:
		reason = "if systemd remembers another device"
	default:
		reason = "as demanded"
	}
	if s.Strategy == container.RestartOnly {
		return Restarted, reason
	}
	return Reexecuted, reason
}

// CannotJudge begins the reason of a mount of which it is not known whether it is
// stale. Nothing is done with it.
const CannotJudge = "cannot be judged now"

// ToPreserve picks the mounts that are to be recreated with the device number
// that their systemd remembers.
func ToPreserve(list []container.Mount) []int {
	var picked []int
	for i := range list {
		m := &list[i]
		if m.Main && m.Master.Kind == master.Systemd && m.Options.Type.Trigger() && !m.Confirmed &&
			m.DeviceBefore != 0 && m.DeviceBefore != m.Device {
			picked = append(picked, i)
		}
	}
	return picked
}

// UnmountedReason is that of offset triggers.
const UnmountedReason = "its entry was not in use and is unmounted: the next access mounts it with a new trigger"

func decideAutomount(s *container.Snapshot, m *container.Mount) (Cure, string) {
	const stale = "automount remembers another device and inode number"
	switch {
	case m.Parking, m.UnderParking:
		return Reloaded, stale
	case m.Options.Type == autofs.Indirect:
		return Healthy, "automount answers indirect mounts through a descriptor it holds"
	case m.Confirmed:
		return Healthy, "an earlier run repaired it"
	case len(m.Covers) > 0:
		return Healthy, "a mount covers it, so that accesses do not ask automount"
	case !s.Restore && (m.Master.Executed || !s.Restored):
		return Healthy, "its daemon was started here, not restored"
	}
	return Reloaded, stale
}

// Known returns the mounts that are known to their masters, those that were cured
// and those that were before.
func Known(s *container.Snapshot, decisions []Decision) []*container.Mount {
	var known []*container.Mount
	for _, d := range decisions {
		m := &s.Mounts[d.Mount]
		if d.Cure != Unrepaired && (d.Cure != Healthy || m.KnownHealthy()) {
			known = append(known, m)
		}
	}
	return known
}

// NeedsRepair reports whether the mount still does at the end of Preserve: direct and
// offset ones whose master does not know them.
func NeedsRepair(m *container.Mount) bool {
	return m.Master.PID != 0 && !m.Outside() && !m.Parking && !m.KnownHealthy() && m.Options.Type.Trigger()
}
