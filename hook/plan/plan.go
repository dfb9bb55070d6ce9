package plan

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
)

// Cure is the planned treatment of a mount and, after a repair, its outcome.
type Cure string

const (
	// Healthy means that the master knows the mount; there is nothing to do.
	Healthy Cure = "healthy"
	// Preserved means that the mount was recreated with the device number that its
	// master remembers.
	Preserved Cure = "preserved"
	// Reexecuted means that systemd remembered another device number, and that
	// its state was corrected when it re-executed itself; nothing else changed.
	Reexecuted Cure = "reexecuted"
	// Restarted means that the .automount unit was restarted and its covers restored.
	Restarted Cure = "restarted"
	// Reloaded means that the automount daemon has mounted its trigger again, after a
	// SIGHUP.
	Reloaded Cure = "reloaded"
	// Unrepaired means that the mount stays as it is, for the given reason.
	Unrepaired Cure = "unrepaired"
)

// Decision is the cure for one mount of a snapshot, with the reason.
type Decision struct {
	Cure   Cure
	Reason string
	// Unjudged is whether an unrepaired mount was left alone because it is unknown whether
	// it is stale. A later run may know it.
	Unjudged bool
	// Unmounted is whether the mount is an offset trigger whose map entry was unmounted.
	Unmounted bool
}

// New returns one decision for each mount of a snapshot, with the same index.
func New(s *container.Snapshot) []Decision {
	decisions := make([]Decision, len(s.Mounts))
	main := map[uint64]Cure{} // cures in the main namespace, by st_dev
	for i := range s.Mounts {
		m := &s.Mounts[i]
		d := decide(s, m)
		if d.Cure == Restarted && m.Master.Nested {
			d.Cure, d.Reason = Unrepaired, NestedReason(m)
		}
		decisions[i] = d
		if m.Main {
			main[m.Device] = d.Cure
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
		case d.Cure != Reloaded: // the daemon's namespace may show the trigger with another number
			d.Cure = Unrepaired
			d.Reason = fmt.Sprintf("systemd recreates mounts in its own mount namespace only, which does not show this one: restart process %d, whose mount namespace it is", m.NamespacePID)
		}
	}
	return decisions
}

// NestedReason explains why the unit of a nested systemd is not restarted: covers can be
// saved only in the mount namespace of the container's first process.
func NestedReason(m *container.Mount) string {
	return fmt.Sprintf("it belongs to a systemd in a container inside the container (process %d): run \"systemctl restart %s\" there", m.Master.PID, m.Master.Unit)
}

func decide(s *container.Snapshot, m *container.Mount) Decision {
	switch m.Master.Kind {
	case master.Outside:
		return Decision{Cure: Healthy, Reason: "served from outside the container"}
	case master.Systemd:
		return decideSystemd(s, m)
	case master.Automount:
		return decideAutomount(s, m)
	case master.Other:
		if m.Master.HoldsRoot {
			return Decision{Cure: Healthy, Reason: "its master has a file open on the mount and answers through it"}
		}
		return Decision{Cure: Unrepaired, Reason: fmt.Sprintf("its master, process %d, is neither systemd nor automount: if accesses hang, restart that process", m.Master.PID)}
	case master.None:
	}
	if m.Options.Catatonic() {
		return Decision{Cure: Healthy, Reason: "it has no master: it was catatonic before the checkpoint"}
	}
	return Decision{Cure: Unrepaired, Reason: "no process reads its pipe: start the program that served it"}
}

// decideSystemd decides whether systemd re-executes itself. Only the state that it
// writes then shows which device numbers it remembers; the decision is revised by it.
func decideSystemd(s *container.Snapshot, m *container.Mount) Decision {
	switch {
	case s.Strategy == container.ReexecOnly:
		return Decision{Cure: Reexecuted, Reason: cmp.Or(m.NotPreserved, "as requested, if systemd remembers another device")}
	case m.Preserved: // also if it is confirmed, which Preserve does
		return Decision{Cure: Preserved, Reason: "it has the device number that systemd remembers"}
	case m.Confirmed && (s.Restore || !m.Master.Waited): // the ledger is a cache: with a waiter, ask systemd
		return Decision{Cure: Healthy, Reason: "an earlier run repaired it"}
	case m.HasOldNumber():
		return Decision{Cure: Healthy, Reason: "it was restored with its old device number"}
	case !s.Restore && !m.Master.Restored && len(container.WaitersOn(s.Waiters, m.Path)) > 0:
		return Decision{Cure: Unrepaired, Unjudged: true, Reason: fmt.Sprintf("it has a waiter, perhaps for a slow server: its systemd was started here, not restored; if the waiter hangs, run \"autofs-restore-hook repair --strategy reexec %d\"", s.PID)}
	case !s.Restore && !m.Master.Restored:
		return Decision{Cure: Healthy, Reason: "its systemd was started here, not restored"}
	}
	reason := m.NotPreserved
	switch {
	case reason != "":
	case m.DeviceBefore != 0:
		reason = "it was device " + mounts.DeviceString(m.DeviceBefore)
	case s.Strategy != container.RestartOnly:
		reason = "if systemd remembers another device"
	default:
		reason = "as requested"
	}
	if s.Strategy == container.RestartOnly {
		return Decision{Cure: Restarted, Reason: reason}
	}
	return Decision{Cure: Reexecuted, Reason: reason}
}

// ToPreserve returns the indices of the mounts that Preserve recreates with the device
// number that their systemd remembers.
func ToPreserve(list []container.Mount) []int {
	var indices []int
	for i := range list {
		m := &list[i]
		if m.Main && m.Master.Kind == master.Systemd && m.Options.Type.Trigger() && !m.Confirmed &&
			m.DeviceBefore != 0 && m.DeviceBefore != m.Device {
			indices = append(indices, i)
		}
	}
	return indices
}

// UnmountedReason is the reason of offset triggers whose map entry was unmounted.
const UnmountedReason = "its map entry was not in use and is unmounted: the next access mounts it with a new trigger"

func decideAutomount(s *container.Snapshot, m *container.Mount) Decision {
	const stale = "automount remembers another device and inode number"
	switch {
	case m.Parking, m.UnderParking:
		return Decision{Cure: Reloaded, Reason: stale}
	case m.Options.Type == autofs.Indirect:
		return Decision{Cure: Healthy, Reason: "automount answers an indirect mount through a file that it has open"}
	case m.Confirmed:
		return Decision{Cure: Healthy, Reason: "an earlier run repaired it"}
	case len(m.Covers) > 0:
		return Decision{Cure: Healthy, Reason: "a mount covers it: accesses do not reach the trigger"}
	case !s.Restore && (m.Master.Executed || !s.Restored):
		return Decision{Cure: Healthy, Reason: "its daemon was started here, not restored"}
	}
	return Decision{Cure: Reloaded, Reason: stale}
}

// CallsSystemd reports whether a cure needs a connection to systemd.
func CallsSystemd(decisions []Decision) bool {
	return slices.ContainsFunc(decisions, func(d Decision) bool { return d.Cure == Reexecuted || d.Cure == Restarted })
}

// Known returns the mounts that their masters know: the cured ones, and healthy ones
// known from the ledger or the device number.
func Known(s *container.Snapshot, decisions []Decision) []*container.Mount {
	var known []*container.Mount
	for i, d := range decisions {
		m := &s.Mounts[i]
		if d.Cure != Unrepaired && (d.Cure != Healthy || m.KnownHealthy()) {
			known = append(known, m)
		}
	}
	return known
}

// NeedsRepair reports whether the mount still needs a repair at the end of Preserve: it is
// direct or offset, and its master does not know it.
func NeedsRepair(m *container.Mount) bool {
	return m.Master.PID != 0 && !m.Outside() && !m.Parking && !m.KnownHealthy() && m.Options.Type.Trigger()
}
