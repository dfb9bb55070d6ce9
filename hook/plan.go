package hook

import (
	"fmt"
	"time"

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
	// Retold means that systemd was told the new device number when it
	// re-executed itself; nothing else changed.
	Retold Cure = "retold"
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

// clockSlack is how far apart two dates of the same moment may be: process start
// times come in ticks of 10 ms, inode times in ticks of up to 10 ms, and systemd
// notes a unit's state just after it made the mount or the process.
const clockSlack = 100 * time.Millisecond

// Plan decides for each mount of a snapshot what is to be done. It only thinks:
// the same snapshot always gives the same plan.
func Plan(s *Snapshot) []Decision {
	decisions := make([]Decision, len(s.Mounts))
	cured := map[uint64]bool{} // superblocks that a cure in their master's namespace covers
	for i := range s.Mounts {
		m := &s.Mounts[i]
		cure, reason := decide(s, m)
		if cure == Restarted && m.Master.Nested {
			cure, reason = Unrepaired, restartThere(m)
		}
		decisions[i] = Decision{Mount: i, Cure: cure, Reason: reason}
		if m.Main && (cure == Restarted || cure == Retold) {
			cured[m.Device] = true
		}
	}
	for i := range s.Mounts {
		m := &s.Mounts[i]
		if !m.Main && (decisions[i].Cure == Restarted || decisions[i].Cure == Retold) {
			if cured[m.Device] {
				decisions[i].Reason = "it shows the mount in the mount namespace of its systemd"
			} else {
				decisions[i].Cure = Unrepaired
				decisions[i].Reason = "systemd renews mounts in its own mount namespace only, which does not show this one"
			}
		}
	}
	return decisions
}

// restartThere says why a unit is not restarted: what covers its mount is only kept
// in the mount namespace of the container's first process.
func restartThere(m *Mount) string {
	return fmt.Sprintf("it belongs to a systemd in a container inside the container (process %d): run \"systemctl restart %s\" there", m.Master.PID, m.Master.Unit)
}

func decide(s *Snapshot, m *Mount) (Cure, string) {
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
		return Healthy, "nobody serves it: it was catatonic before"
	}
	return Unrepaired, "no process reads its pipe: start the program that served it"
}

func decideSystemd(s *Snapshot, m *Mount) (Cure, string) {
	switch {
	case m.Preserved: // and settled, since the same moment
		return Preserved, "it has the device number that systemd remembers"
	case m.Settled:
		return Healthy, "an earlier run repaired it"
	case m.knownHealthy():
		return Healthy, "it came back with its old device number"
	}
	if !s.Restore {
		if healthy, reason := datedAsItsUnit(m); healthy {
			return Healthy, reason
		}
	}
	switch {
	case s.Strategy == PreserveOnly && m.NotPreserved != "":
		return Unrepaired, m.NotPreserved
	case s.Strategy == PreserveOnly:
		return Unrepaired, "the device number that systemd remembers is not known: name the checkpoint images with --images"
	case m.Master.Unanswered && !s.Restore && m.DeviceBefore == 0:
		return Unrepaired, CannotJudge + ": " + m.Master.Problem
	case m.Master.Problem != "":
		return Unrepaired, m.Master.Problem
	case m.Main && !m.Master.UnitActive:
		return Unrepaired, fmt.Sprintf("%s is not active: start it with \"systemctl start %s\" in the container", m.Master.Unit, m.Master.Unit)
	case m.DeviceBefore == 0 && s.Strategy == RetellOnly:
		return Unrepaired, "the device number that systemd remembers is not known: name the checkpoint images with --images"
	case m.DeviceBefore == 0 && !s.Restore && (m.Created.IsZero() || m.Master.UnitSince.IsZero()) && s.Strategy != RestartOnly:
		return Unrepaired, CannotJudge + ": " + unseen(m)
	case m.DeviceBefore == 0:
		return Restarted, "it was mounted after its unit became active: systemd remembers an older device"
	}
	cure := Retold
	if s.Strategy == RestartOnly {
		cure = Restarted
	}
	if m.NotPreserved != "" {
		return cure, m.NotPreserved
	}
	return cure, fmt.Sprintf("systemd remembers device %s", mounts.DeviceString(m.DeviceBefore))
}

// CannotJudge begins the reason of a mount of which it is not known whether it is
// stale. Nothing is done with it.
const CannotJudge = "cannot be judged now"

// unseen says what could not be seen of a mount.
func unseen(m *Mount) string {
	if m.Created.IsZero() {
		return "it could not be opened, as while a process waits on it"
	}
	return "systemd does not say since when its unit is active"
}

// planRepair is what a person's repair would do, in advance: it tries first to
// make mounts anew with their old numbers, which a repair after CRIU's
// pre-resume has behind it.
func planRepair(s *Snapshot) []Decision {
	plan := Plan(s)
	if s.Strategy == RetellOnly || s.Strategy == RestartOnly {
		return plan
	}
	for _, i := range toPreserve(s.Mounts, s.Waiters) {
		if plan[i].Cure == Healthy {
			continue
		}
		for j := range plan {
			if s.Mounts[plan[j].Mount].Device == s.Mounts[i].Device {
				plan[j].Cure = Preserved
				plan[j].Reason = fmt.Sprintf("if device number %s can be had", mounts.DeviceString(s.Mounts[i].DeviceBefore))
			}
		}
	}
	return plan
}

// toPreserve picks the mounts that are to be made anew with the device number
// that their systemd remembers. A mount that somebody waits on is left to be
// told: then systemd answers him, which it cannot on another superblock.
func toPreserve(list []Mount, waiters []Waiter) []int {
	var picked []int
	for i := range list {
		m := &list[i]
		if m.Main && m.Master.Kind == master.Systemd && m.Options.Type.Trigger() && !m.Settled && !m.LeftAlone &&
			m.DeviceBefore != 0 && m.DeviceBefore != m.Device && len(waitersOn(waiters, m.Path)) == 0 {
			picked = append(picked, i)
		}
	}
	return picked
}

// datedAsItsUnit compares the age of the mount with that of its unit. systemd
// makes the mount when it activates the unit; CRIU makes it at the restore,
// while systemd still remembers when the unit was activated.
func datedAsItsUnit(m *Mount) (bool, string) {
	if m.Created.IsZero() || m.Master.UnitSince.IsZero() {
		return false, ""
	}
	if m.Created.After(m.Master.UnitSince.Add(clockSlack)) {
		return false, ""
	}
	return true, "it is as old as its unit: systemd mounted it itself"
}

func decideAutomount(s *Snapshot, m *Mount) (Cure, string) {
	const stale = "automount remembers another device and inode number"
	switch {
	case m.Parking, m.UnderParking:
		return Reloaded, stale
	case m.Options.Type == autofs.Indirect:
		return Healthy, "automount answers indirect mounts through a descriptor it holds"
	case m.Settled:
		return Healthy, "an earlier run repaired it"
	case len(m.Covers) > 0:
		return Healthy, "a mount covers it, so that accesses do not ask automount"
	case s.Restore, s.Strategy != Auto && s.Strategy != "":
		return Reloaded, stale
	case m.Master.Executed:
		return Healthy, "its daemon was started here, not restored"
	case s.Executed:
		return Healthy, "the container's first process was started here, not restored"
	}
	return Reloaded, stale
}
