package container

import (
	"errors"
	"io/fs"
	"slices"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/owner"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/park"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Parking describes the parking mounts for triggers of one daemon.
type Parking struct {
	// Daemon and DaemonStart tell which process serves the triggers.
	Daemon      int             `json:"daemon"`
	DaemonStart uint64          `json:"daemon_start"`
	Mounts      []ParkedTrigger `json:"mounts"`
}

// ParkedTrigger is a trigger whose place a parking mount has taken.
type ParkedTrigger struct {
	Path string `json:"path"`
	// Parking is the st_dev of the parking mount, Stale that of the trigger.
	Parking uint64 `json:"parking"`
	Stale   uint64 `json:"stale"`
}

// Lot returns the parking mount, nil if the table does not show it. Another mount may
// have its number once it is gone.
func (t ParkedTrigger) Lot(table *mounts.Table) *mounts.Mount {
	if m := table.Find(t.Path, t.Parking); m != nil && m.FSType == "autofs" && m.Source == park.Source {
		return m
	}
	return nil
}

// Successor returns the trigger that is mounted in the place of the stale one, nil if
// there is none.
func (t ParkedTrigger) Successor(table *mounts.Table) *mounts.Mount {
	for _, m := range table.Autofs() {
		if m.Mountpoint == t.Path && m.Source != park.Source && mounts.DeviceOf(m) != t.Stale {
			return m
		}
	}
	return nil
}

// parkingAt is what a parking mount stands for, by its st_dev; nil for another mount.
func (c *Container) parkingAt(path string, device uint64) *Parking {
	for _, p := range c.Parkings {
		if slices.ContainsFunc(p.Mounts, func(t ParkedTrigger) bool { return t.Path == path && t.Parking == device }) {
			return p
		}
	}
	return nil
}

// Daemon opens the daemon of parking mounts; nil if it has ended.
func (c *Container) Daemon(p *Parking) (*owner.Member, error) {
	daemon, err := nsenter.OpenIdentity(p.Daemon, p.DaemonStart)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // it has ended
	}
	if err != nil {
		return nil, err
	}
	member, err := c.Owner.Admit(daemon)
	if err != nil {
		daemon.Close()
	}
	return member, err
}

// IsParking reports whether it is a parking mount of ours.
func (c *Container) IsParking(m *mounts.Mount) bool {
	return m != nil && m.FSType == "autofs" && m.Source == park.Source && c.parkingAt(m.Mountpoint, mounts.DeviceOf(m)) != nil
}

// coversTrigger reports whether a mount covers another autofs mount exactly.
func coversTrigger(t *mounts.Table, m *mounts.Mount) bool {
	parent := t.ByID(m.Parent)
	return parent != nil && parent.FSType == "autofs" && parent.Mountpoint == m.Mountpoint
}

// parkedMaster is the daemon in the place of whose triggers parking mounts are.
func (c *Container) parkedMaster(p *Parking) Master {
	m := Master{Identity: master.Identity{Kind: master.None}}
	daemon, err := c.Daemon(p)
	if daemon == nil || err != nil {
		return m
	}
	if id, err := master.Identify(daemon.Process); err == nil {
		m = Master{Identity: id, StartTime: daemon.StartTime()}
	}
	if c.Masters[p.Daemon] == nil {
		c.Masters[p.Daemon] = daemon
		c.pipes[p.Daemon], _ = master.Pipes(daemon.Process) // it serves other mounts, too
	} else {
		daemon.Close()
	}
	return m
}
