module github.com/autofs-restore-hook/autofs-restore-hook/test

go 1.26.0

require (
	github.com/autofs-restore-hook/autofs-restore-hook v0.0.0
	github.com/moby/sys/mountinfo v0.7.3
	github.com/opencontainers/runtime-spec v1.3.0
	golang.org/x/sys v0.49.0
)

require (
	github.com/coreos/go-systemd/v22 v22.7.0 // indirect
	github.com/godbus/dbus/v5 v5.2.4 // indirect
)

replace github.com/autofs-restore-hook/autofs-restore-hook => ..
