// Package containertest makes mounts for the tests of other packages.
package containertest

import (
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
)

// SystemdMount returns a stale mount of a systemd, whose device number was 54 and is 60.
// change, which may be nil, changes it.
func SystemdMount(change func(*container.Mount)) container.Mount {
	m := container.Mount{
		Main: true, Namespace: 1, Path: "/a", Device: 60, DeviceBefore: 54,
		Options: autofs.Options{FD: 9, HasPipe: true, Type: autofs.Direct},
		Master: container.Master{
			Identity: master.Identity{Kind: master.Systemd, PID: 100},
			Unit:     "a.automount",
		},
	}
	if change != nil {
		change(&m)
	}
	return m
}

// AutomountMount returns the same mount with an automount daemon as its master. change,
// which may be nil, changes it.
func AutomountMount(change func(*container.Mount)) container.Mount {
	m := SystemdMount(nil)
	m.Master = container.Master{Identity: master.Identity{Kind: master.Automount, PID: 101}}
	if change != nil {
		change(&m)
	}
	return m
}

// UnknownDevice makes the old device number unknown.
func UnknownDevice(m *container.Mount) { m.DeviceBefore = 0 }

// SameDevice gives the mount its old device number.
func SameDevice(m *container.Mount) { m.Device = 54 }

// Preserved makes the mount one that Preserve has recreated.
func Preserved(m *container.Mount) { m.Preserved, m.Device = true, 54 }

// Late makes the mount one of a late repair, and sets Restored and Waited of its master.
func Late(restored, waited bool) func(*container.Mount) {
	return func(m *container.Mount) { m.DeviceBefore, m.Master.Restored, m.Master.Waited = 0, restored, waited }
}

// Other returns a mount of a master that is neither systemd nor automount, and that
// holds the root open or not.
func Other(holdsRoot bool) container.Mount {
	return SystemdMount(func(m *container.Mount) {
		m.Master = container.Master{Identity: master.Identity{Kind: master.Other, PID: 102}, HoldsRoot: holdsRoot}
	})
}

// HostileName is a path with control characters, as a hostile container may choose.
const HostileName = "/a\n\x1b[2J\u202e\xff b"
