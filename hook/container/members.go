package container

import (
	"fmt"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// withVisitors are the container's processes, and those that entered it from
// outside, such as those of "runc exec": they may wait on its mounts. Containers
// that share a pid namespace differ in their mount namespaces.
func (c *Container) withVisitors() ([]int, error) {
	all, err := c.Init.Members()
	if err != nil {
		return nil, err
	}
	found, err := c.Init.Descendants() // after it: some may be new
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

// Space is the container's mount namespace with the given inode number, nil if
// none of its processes is there.
func (c *Container) Space(id uint64) *Space {
	for _, sp := range c.Spaces {
		if sp.ID == id {
			return sp
		}
	}
	return nil
}

// CheckFirstProcess is an error if a person seems to have named a process that is not the
// container's first one: then the masters do not descend from it, and seem to be
// outside.
func (c *Container) CheckFirstProcess(list []Mount) error {
	numbers, err := c.Init.Status("NSpid")
	if fields := strings.Fields(numbers); err != nil || len(fields) == 0 || fields[len(fields)-1] == "1" {
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
			continue // ended meanwhile
		}
		theirs, err := p.Namespace("pid")
		p.Close()
		if err == nil && theirs == own {
			return fmt.Errorf("%q is served by process %d of the same pid namespace, which does not descend from process %d: name the container's first process if that is another one",
				m.Path, m.Master.PID, c.Init.PID())
		}
	}
	return nil
}
