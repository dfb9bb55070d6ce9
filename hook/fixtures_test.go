package hook

import (
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
)

// systemdMount is one that its systemd does not know: device 54 became 60.
func systemdMount(change func(*Mount)) Mount {
	m := Mount{
		Main: true, Namespace: 1, Path: "/a", Device: 60, DeviceBefore: 54,
		Options: autofs.Options{FD: 9, HasPipe: true, Type: autofs.Direct},
		Master: Master{
			Identity: master.Identity{Kind: master.Systemd, PID: 100},
			Unit:     "a.automount",
		},
	}
	if change != nil {
		change(&m)
	}
	return m
}

// automountMount is one of a daemon that a service runs.
func automountMount(change func(*Mount)) Mount {
	m := systemdMount(nil)
	m.Master = Master{Identity: master.Identity{Kind: master.Automount, PID: 101}}
	if change != nil {
		change(&m)
	}
	return m
}

func unknown(m *Mount) { m.DeviceBefore = 0 }

func same(m *Mount) { m.Device = 54 }

func preserved(m *Mount) { m.Preserved, m.Device = true, 54 }

// late is a mount that a person's repair finds.
func late(restored, waited bool) func(*Mount) {
	return func(m *Mount) { m.DeviceBefore, m.Master.Restored, m.Master.Waited = 0, restored, waited }
}

func other(holds bool) Mount {
	return systemdMount(func(m *Mount) {
		m.Master = Master{Identity: master.Identity{Kind: master.Other, PID: 102}, HoldsRoot: holds}
	})
}

// hostile is a name that a container might choose to confuse a reader.
const hostile = "/a\n\x1b[2J\u202e\xff b"
