package container

import (
	"fmt"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
)

// Snapshot is what was found in a container, as plain data.
type Snapshot struct {
	PID int
	// Restore is whether CRIU itself says that the container has just been
	// restored.
	Restore bool
	// Restored is whether CRIU has made the container's first process.
	Restored bool
	// Strategy limits the cures.
	Strategy Strategy
	// ReexecuteReplaced is the administrator's choice of that name.
	ReexecuteReplaced bool
	Mounts            []Mount
	Waiters           []Waiter
}

// Mount is one autofs mount in one mount namespace.
type Mount struct {
	// Namespace is the inode number of the mount namespace; Main is whether it is
	// that of its master, or without one, of the container's first process.
	Namespace uint64
	Main      bool
	// NamespacePID is a process in that namespace.
	NamespacePID int
	ID           int
	Path         string
	Device       uint64 // st_dev
	Source       string
	Options      autofs.Options
	// Covers are the mounts that lie exactly over it, the lowest first; Below
	// are all mounts on it, in it and on those.
	Covers, Below []Cover
	// DeviceBefore is the st_dev that the checkpoint images have for the path, or
	// systemd's state; 0 if neither is known.
	DeviceBefore uint64
	// Confirmed is whether an earlier run has made sure that its master knows it,
	// and nothing has changed since.
	Confirmed bool
	// Preserved is whether an earlier moment of this restore gave it its old
	// number back; NotPreserved says why not, "" if it was not tried.
	Preserved    bool
	NotPreserved string
	// Parking is whether it is a parking mount of ours, in the place of a trigger of
	// Master; UnderParking whether one covers it.
	Parking, UnderParking bool
	Master                Master
}

// Cover is a mount on an autofs mount.
type Cover struct {
	ID     int
	Type   string
	Path   string
	Device uint64
}

// Master is the process that serves a mount, and its unit.
type Master struct {
	master.Identity
	// StartTime is its nsenter.Process.StartTime.
	StartTime uint64
	// PipeFD is the descriptor with which it reads the mount's pipe.
	PipeFD int
	// Unit is the .automount unit of a systemd master, "" for another one.
	Unit string
	// Executed is whether it has executed its program since a fork made it. A
	// restored daemon has not.
	Executed bool
	// Restored is whether CRIU has made the process of a systemd, Waited whether a
	// process waits on one of its mounts.
	Restored, Waited bool
	// HoldsRoot is whether the process has a file descriptor on the mount, and
	// so can answer without looking for it.
	HoldsRoot bool
	// Nested is whether it is in another mount namespace than the container's first
	// process: a daemon of a service with its own, or a container in the container.
	Nested bool
}

// Waiter is a process that is blocked in the kernel on an autofs mount.
type Waiter struct {
	PID     int    `json:"pid"`
	Command string `json:"command"`
	// Path is what the process wants to reach, "" if that could not be read.
	Path string `json:"path,omitempty"`
	// Process is the process that the thread PID belongs to, Start its start time.
	Process int    `json:"-"`
	Start   uint64 `json:"-"`
}

// Key names the mount.
func (m *Mount) Key() RootKey { return RootKey{m.Namespace, m.ID} }

// Outside reports whether a process that is not the container's serves the mount:
// the mount is not opened, not changed, and no failure.
func (m *Mount) Outside() bool { return m.Master.Kind == master.Outside }

// KnownHealthy reports whether the device numbers alone show that the master
// knows the mount, so that it need not be asked.
func (m *Mount) KnownHealthy() bool {
	return m.Confirmed || m.Preserved || m.HasOldNumber()
}

// HasOldNumber reports whether it is a systemd's with the number in the images.
func (m *Mount) HasOldNumber() bool {
	return m.Master.Kind == master.Systemd && m.DeviceBefore != 0 && m.DeviceBefore == m.Device
}

// Identifier names the master's process for as long as the machine runs.
func (m *Master) Identifier() string { return fmt.Sprintf("%d-%d", m.PID, m.StartTime) }
