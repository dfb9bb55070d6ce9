package hook

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
)

// Cure is what is done for a mount, the mildest first.
type Cure string

const (
	// Healthy means that the master knows the mount as it is; nothing to do.
	Healthy Cure = "healthy"
	// Preserved means that the mount was made anew with the device number that its master
	// remembers.
	Preserved Cure = "preserved"
	// Reexecuted means that systemd remembered another device number, and that
	// this was corrected when it re-executed itself; nothing else changed.
	Reexecuted Cure = "reexecuted"
	// Restarted means that the systemd unit is restarted, and what covered it kept.
	Restarted Cure = "restarted"
	// Respawned means that the automount daemon is killed with SIGKILL and started again
	// by its service, its supervisor or us; the new one takes over the mounts that exist.
	Respawned Cure = "respawned"
	// Unrepaired means that it stays as it is, for the reason given.
	Unrepaired Cure = "unrepaired"
)

// Decision is the cure for one mount of a snapshot, and why.
type Decision struct {
	Mount  int // index in Snapshot.Mounts
	Cure   Cure
	Reason string
}

// Plan decides for each mount of a snapshot what is to be done. It only thinks:
// the same snapshot always gives the same plan.
func Plan(s *Snapshot) []Decision {
	decisions := make([]Decision, len(s.Mounts))
	main := map[uint64]Cure{} // of the superblocks that the main namespace shows
	for i := range s.Mounts {
		m := &s.Mounts[i]
		cure, reason := decide(s, m)
		decisions[i] = Decision{Mount: i, Cure: cure, Reason: reason}
		if m.Main {
			main[m.Device] = cure
		}
	}
	for i := range s.Mounts {
		m, d := &s.Mounts[i], &decisions[i]
		if m.Main || d.Cure != Restarted && d.Cure != Reexecuted {
			continue
		}
		if cure, shown := main[m.Device]; shown {
			d.Cure, d.Reason = cure, "it shows the mount of the container's main mount namespace"
		} else {
			d.Cure = Unrepaired
			d.Reason = "systemd renews mounts in the container's main mount namespace only, which does not show this one"
		}
	}
	return decisions
}

func decide(s *Snapshot, m *Mount) (Cure, string) {
	switch m.Master.Kind {
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
	if s.Unstarted != "" {
		return Unrepaired, fmt.Sprintf("nobody serves it: start %s in the container", s.Unstarted)
	}
	if m.Options.Catatonic() {
		return Healthy, "nobody serves it: it was catatonic before"
	}
	return Unrepaired, "no process reads its pipe: start the program that served it"
}

// decideSystemd decides whether systemd is to re-execute itself. What it remembers
// shows only then, and is what decides in the end.
func decideSystemd(s *Snapshot, m *Mount) (Cure, string) {
	switch {
	case s.Strategy == ReexecOnly:
		return Reexecuted, cmp.Or(m.NotPreserved, "as demanded, if systemd remembers another device")
	case m.Preserved:
		return Preserved, "it has the device number that systemd remembers"
	case m.Settled && (s.Restore || !m.Master.Waited): // a cache: a waiter is a reason to ask
		return Healthy, "an earlier run repaired it"
	case m.hasOldNumber():
		return Healthy, "it came back with its old device number"
	case !s.Restore && !m.Master.Restored && !m.Master.Waited:
		return Healthy, "its systemd was started here, not restored"
	}
	reason := m.NotPreserved
	switch {
	case reason != "":
	case m.DeviceBefore != 0:
		reason = "it was device " + mounts.DeviceString(m.DeviceBefore)
	case s.Strategy != RestartOnly:
		reason = "if systemd remembers another device"
	default:
		reason = "as demanded"
	}
	if s.Strategy == RestartOnly {
		return Restarted, reason
	}
	return Reexecuted, reason
}

// toPreserve picks the mounts that are to be made anew with the device number
// that their systemd remembers.
func toPreserve(list []Mount) []int {
	var picked []int
	for i := range list {
		m := &list[i]
		if m.Main && m.Master.Kind == master.Systemd && m.Options.Type.Trigger() && !m.Settled &&
			m.DeviceBefore != 0 && m.DeviceBefore != m.Device {
			picked = append(picked, i)
		}
	}
	return picked
}

func decideAutomount(s *Snapshot, m *Mount) (Cure, string) {
	if m.Master.Alone != nil && m.Master.Alone.Killed {
		return Respawned, "an earlier run was ended while it replaced the daemon"
	}
	if m.Options.Type == autofs.Indirect {
		return Healthy, "automount answers indirect mounts through a descriptor it holds"
	}
	if m.Settled {
		return Healthy, "an earlier run repaired it"
	}
	if !s.Restore && (m.Master.Executed || !s.Restored) {
		return Healthy, "its daemon was started here, not restored"
	}
	if m.Master.Problem != "" {
		return Unrepaired, m.Master.Problem
	}
	if m.Master.Alone != nil {
		return decideAlone(s, m.Master.Alone)
	}
	return Respawned, staleDaemon
}

const staleDaemon = "automount remembers another device and inode number"

// decideAlone decides whether a daemon that no systemd runs may be replaced. One
// that made a daemon of itself has lost the process that started it: nobody
// waits for its end. One in the foreground is somebody's child, and if that is a
// shell, nothing tells whether it starts the daemon again or ends with it, and
// the container with that. So that is left to a person, who knows.
func decideAlone(s *Snapshot, a *Alone) (Cure, string) {
	switch {
	case a.Obstacle != "":
		return Unrepaired, a.Obstacle + ": end all processes that wait, end it with \"kill -9\" in the container and start it again there"
	case a.Forced:
		return Unrepaired, "its option --force would have a new one unmount everything: start it again without that"
	case !a.Foreground || slices.Contains(supervisors, a.Parent) || s.Strategy == RestartOnly:
		return Respawned, staleDaemon
	}
	return Unrepaired, fmt.Sprintf("it runs in the foreground of process %d (%q), which may end with it: "+
		"if that starts it again, run \"autofs-restore-hook repair %d --strategy restart\"", a.ParentPID, a.Parent, s.PID)
}

// supervisors are programs that start their children again and do not end with
// them: those of runit, s6, daemontools, perp, supervisord and circus.
var supervisors = []string{"runsv", "s6-supervise", "supervise", "perpd", "supervisord", "circusd"}
