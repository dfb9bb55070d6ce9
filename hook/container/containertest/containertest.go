// Package containertest has mounts for the tests of the packages that judge them.
package containertest

import (
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
)

// SystemdMount is one that its systemd does not know: device 54 became 60.
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

// AutomountMount is one of a daemon that a service runs.
func AutomountMount(change func(*container.Mount)) container.Mount {
	m := SystemdMount(nil)
	m.Master = container.Master{Identity: master.Identity{Kind: master.Automount, PID: 101}}
	if change != nil {
		change(&m)
	}
	return m
}

// UnknownDevice is of a mount whose old number no image tells.
func UnknownDevice(m *container.Mount) { m.DeviceBefore = 0 }

// SameDevice is of a mount that came back with its number.
func SameDevice(m *container.Mount) { m.Device = 54 }

// Preserved is of a mount that Preserve has recreated.
func Preserved(m *container.Mount) { m.Preserved, m.Device = true, 54 }

// Late is a mount that a person's repair finds.
func Late(restored, waited bool) func(*container.Mount) {
	return func(m *container.Mount) { m.DeviceBefore, m.Master.Restored, m.Master.Waited = 0, restored, waited }
}

// Other is a mount of a master that is neither systemd nor automount.
func Other(holds bool) container.Mount {
	return SystemdMount(func(m *container.Mount) {
		m.Master = container.Master{Identity: master.Identity{Kind: master.Other, PID: 102}, HoldsRoot: holds}
	})
}

// HostileName is a name that a container might choose to confuse a reader.
const HostileName = "/a\n\x1b[2J\u202e\xff b"
