package container

import (
	"fmt"
	"path"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/cgroup"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// AllInOwnGroup returns a warning if all processes of a systemd container are in the
// container's own control group, where some runtimes restore them; "" if they are not.
func (c *Container) AllInOwnGroup() string {
	if id, err := master.Identify(c.Init); err != nil || id.Kind != master.Systemd {
		return ""
	}
	own, err := cgroup.Version2Of(c.Init)
	if err != nil || own == "/" || path.Base(own) == "init.scope" {
		return ""
	}
	others := 0
	for _, pid := range c.Members {
		if pid == c.Init.PID() {
			continue
		}
		p, err := nsenter.Open(pid)
		if err != nil {
			continue
		}
		group, err := cgroup.Version2Of(p)
		p.Close()
		if err != nil || group != own {
			return ""
		}
		others++
	}
	if others == 0 {
		return ""
	}
	return fmt.Sprintf("all processes are in the container's own control group %q, none in that of its unit: its systemd does not know which service a process "+
		"belongs to, and systemctl stop kills none; crun and runc 1.3 restore a container without a cgroup namespace like that: create it with one (podman run --cgroupns=private)", own)
}
