package container

import (
	"fmt"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/waiters"
)

// Snapshot describes a container as plain data.
type Snapshot struct {
	// PID is the container's first process.
	PID int
	// Restore is whether the run is part of a restore by CRIU.
	Restore bool
	// Restored is whether CRIU has created the container's first process.
	Restored bool
	// Strategy limits the cures.
	Strategy Strategy
	// ReexecuteReplaced is the administrator's setting of that name.
	ReexecuteReplaced bool
	Mounts            []Mount
	Waiters           []Waiter
}

// Mount is one autofs mount in one mount namespace.
type Mount struct {
	// Namespace is the inode number of the mount namespace. Main is whether it is the
	// namespace of its master or, without a master, of the container's first process.
	Namespace uint64
	Main      bool
	// NamespacePID is a process in that namespace.
	NamespacePID int
	ID           int // mount id
	Path         string
	Device       uint64 // st_dev
	Source       string
	Options      autofs.Options
	// Covers are the mounts on its root, the lowest first; Below are all mounts on it
	// and in it.
	Covers, Below []Cover
	// DeviceBefore is the st_dev of the path in the checkpoint images or in systemd's
	// state; 0 if both are unknown.
	DeviceBefore uint64
	// Confirmed is whether the ledger lists the mount: an earlier run has verified
	// that its master knows it, and it is unchanged.
	Confirmed bool
	// Preserved is whether an earlier stage of this restore recreated the mount with
	// its old device number; NotPreserved is the reason if that failed.
	Preserved    bool
	NotPreserved string
	// Parking is whether it is a parking mount for a trigger of Master; UnderParking
	// is whether a parking mount covers it.
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
	// StartTime is nsenter.Process.StartTime.
	StartTime uint64
	// PipeFD is the master's descriptor for the mount's pipe.
	PipeFD int
	// Unit is the .automount unit of a systemd master, "" for others.
	Unit string
	// Executed is whether the process has executed a program since its fork. A
	// restored daemon has not.
	Executed bool
	// Restored is whether CRIU has created a systemd master; Waited is whether one of
	// its mounts has a waiter. Both are set for late repairs only.
	Restored, Waited bool
	// HoldsRoot is whether the process has a file open on the mount, so that it can
	// answer requests without opening the mount by its path.
	HoldsRoot bool
	// Nested is whether it is in another mount namespace than the container's first
	// process, as a service with its own namespace or a container in the container.
	Nested bool
}

// Waiter is a process that is blocked in the kernel on an autofs mount.
type Waiter = waiters.Waiter

// Key returns the mount's key in [Container.Roots].
func (m *Mount) Key() RootKey { return RootKey{m.Namespace, m.ID} }

// Outside reports whether the mount's master is not a process of the container. Such a
// mount is neither opened nor changed, and counts as healthy.
func (m *Mount) Outside() bool { return m.Master.Kind == master.Outside }

// KnownHealthy reports whether the master is known to know the mount, without a request
// to the master.
func (m *Mount) KnownHealthy() bool {
	return m.Confirmed || m.Preserved || m.HasOldNumber()
}

// HasOldNumber reports whether a systemd serves the mount and it has the device number
// from before the checkpoint.
func (m *Mount) HasOldNumber() bool {
	return m.Master.Kind == master.Systemd && m.DeviceBefore != 0 && m.DeviceBefore == m.Device
}

// Identifier returns the pid and start time of the master, which are unique until the
// machine reboots.
func (m *Master) Identifier() string { return fmt.Sprintf("%d-%d", m.PID, m.StartTime) }
