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
	// Daemon and DaemonStart are the pid and the start time of the daemon.
	Daemon      int             `json:"daemon"`
	DaemonStart uint64          `json:"daemon_start"`
	Mounts      []ParkedTrigger `json:"mounts"`
}

// ParkedTrigger is a stale trigger that a parking mount replaces.
type ParkedTrigger struct {
	Path string `json:"path"`
	// Parking is the st_dev of the parking mount, Stale the st_dev of the trigger.
	Parking uint64 `json:"parking"`
	Stale   uint64 `json:"stale"`
}

// Lot returns the parking mount in a mount table, nil if there is none. After its removal
// another mount may get its device number.
func (t ParkedTrigger) Lot(table *mounts.Table) *mounts.Mount {
	if m := table.Find(t.Path, t.Parking); m != nil && m.FSType == "autofs" && m.Source == park.Source {
		return m
	}
	return nil
}

// Successor returns the trigger that was mounted instead of the stale one, nil if there is
// none.
func (t ParkedTrigger) Successor(table *mounts.Table) *mounts.Mount {
	for _, m := range table.Autofs() {
		if m.Mountpoint == t.Path && m.Source != park.Source && mounts.DeviceOf(m) != t.Stale {
			return m
		}
	}
	return nil
}

// parkingAt returns the description of the parking mount with the given mount point and
// st_dev; nil if it is another mount.
func (c *Container) parkingAt(path string, device uint64) *Parking {
	for _, p := range c.Parkings {
		if slices.ContainsFunc(p.Mounts, func(t ParkedTrigger) bool { return t.Path == path && t.Parking == device }) {
			return p
		}
	}
	return nil
}

// Daemon opens the daemon of parking mounts; nil if it has ended. The error is
// owner.ErrOutside if it is not a process of the container any more.
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

// IsParking reports whether m, which may be nil, is a parking mount.
func (c *Container) IsParking(m *mounts.Mount) bool {
	return m != nil && m.FSType == "autofs" && m.Source == park.Source && c.parkingAt(m.Mountpoint, mounts.DeviceOf(m)) != nil
}

// coversTrigger reports whether m covers an autofs mount at the same mount point.
func coversTrigger(t *mounts.Table, m *mounts.Mount) bool {
	parent := t.ByID(m.Parent)
	return parent != nil && parent.FSType == "autofs" && parent.Mountpoint == m.Mountpoint
}

// parkedMaster returns the daemon whose triggers parking mounts replace.
func (c *Container) parkedMaster(p *Parking) Master {
	m := noMaster()
	daemon, err := c.Daemon(p)
	if daemon == nil || err != nil {
		return m
	}
	if id, err := master.Identify(daemon.Process); err == nil {
		m = Master{Identity: id, StartTime: daemon.StartTime()}
	}
	if c.Masters[p.Daemon] == nil {
		c.Masters[p.Daemon] = daemon
		c.pipes[p.Daemon], _ = master.Pipes(daemon.Process) // of its other mounts
	} else {
		daemon.Close()
	}
	return m
}
