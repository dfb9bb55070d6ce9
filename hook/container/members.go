package container

import (
	"fmt"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// withVisitors returns the pids of the container's processes, and of those that entered
// it from outside: they may wait on its mounts. A process of another container in the
// same pid namespace is in another mount namespace.
func (c *Container) withVisitors() ([]int, error) {
	all, err := c.Init.Members()
	if err != nil {
		return nil, err
	}
	found, err := c.Init.Descendants() // after Members: there may be new ones
	if err != nil {
		return nil, err
	}
	known := map[int]bool{}
	for _, pid := range found {
		known[pid] = true
	}
	for _, pid := range all {
		if !known[pid] && c.Space(nsenter.MountNamespaceOf(pid).Inode) != nil {
			found = append(found, pid)
		}
	}
	return found, nil
}

// Space returns the container's mount namespace with the given inode number, nil if there
// is none.
func (c *Container) Space(id uint64) *Space {
	for _, sp := range c.Spaces {
		if sp.ID == id {
			return sp
		}
	}
	return nil
}

// CheckFirstProcess returns an error if Init seems not to be the container's first
// process: it is not PID 1 of its pid namespace, and a master in that namespace does not
// descend from it, so that the master counts as outside.
func (c *Container) CheckFirstProcess(list []Mount) error {
	if inner, err := master.ContainerPID(c.Init); err != nil || inner == 1 {
		return err
	}
	own, err := c.Init.Namespace("pid")
	if err != nil {
		return err
	}
	for i := range list {
		m := &list[i]
		if !m.Outside() {
			continue
		}
		p, err := nsenter.Open(m.Master.PID)
		if err != nil {
			continue // it has ended
		}
		namespace, err := p.Namespace("pid")
		p.Close()
		if err == nil && namespace == own {
			return fmt.Errorf("%q is served by process %d of the same pid namespace, which does not descend from process %d: if another process is the container's first one, name that",
				m.Path, m.Master.PID, c.Init.PID())
		}
	}
	return nil
}
