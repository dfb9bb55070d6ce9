package container

import (
	"fmt"
	"path"
	"slices"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/cgroup"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// GroupWarnings returns what is wrong with the container's control groups, where some
// runtimes restore containers into others than they had.
func (c *Container) GroupWarnings() []string {
	return slices.DeleteFunc([]string{c.allInOwnGroup(), c.sharedGroup()}, func(text string) bool { return text == "" })
}

// sharedGroup returns a warning if the first process of another container is in the same
// control group as that of this one; "" if none is.
func (c *Container) sharedGroup() string {
	own, err := cgroup.Version2Of(c.Init)
	if err != nil || own == "/" {
		return ""
	}
	members, err := cgroup.Members(own)
	if err != nil {
		return ""
	}
	mine := make(map[int]bool, len(c.Members))
	for _, pid := range c.Members {
		mine[pid] = true
	}
	for _, pid := range members {
		if pid == 1 || mine[pid] {
			continue
		}
		p, err := nsenter.Open(pid)
		if err != nil {
			continue
		}
		inner, err := master.ContainerPID(p)
		p.Close()
		if err == nil && inner == 1 {
			return fmt.Sprintf("process %d, the first one of another container, is in the same control group %q: the limits of both count together, and the runtime may end "+
				"both with one of them; runc 1.1 restores a container into the group in which it was checkpointed: do not restore it beside that one with this runc", pid, own)
		}
	}
	return ""
}

// allInOwnGroup returns a warning if all processes of a systemd container are in the
// container's own control group; "" if they are not.
func (c *Container) allInOwnGroup() string {
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
