package container

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/owner"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Survey describes every autofs mount of the container, with its master. It calls no
// process, so it works while all processes are stopped.
func (c *Container) Survey() ([]Mount, error) {
	found, err := c.ListAutofs()
	if err != nil {
		return nil, err
	}
	c.refreshPipes()
	return found, c.FindMasters(found)
}

// Limits of a survey, for all mount namespaces of a container together. The container's
// root user may create 100,000 mounts in each (sysctl fs.mount-max).
const (
	maxAutofs = 1 << 14 // autofs mounts; each takes half a kilobyte of the report
	maxCovers = 1 << 18 // sum of the mounts on each autofs mount
)

// ListAutofs is [Container.Survey] without masters.
func (c *Container) ListAutofs() ([]Mount, error) {
	var found []Mount
	covered := 0
	for i, sp := range c.Spaces {
		if sp.Table == nil {
			continue
		}
		if len(found)+len(sp.Table.Autofs()) > maxAutofs {
			return nil, fmt.Errorf("the container's mount namespaces have more than %d autofs mounts, the limit: unmount some, then repair again", maxAutofs)
		}
		for _, m := range sp.Table.Autofs() {
			if c.IsParking(sp.Table.ByID(m.Parent)) || c.IsParking(m) && coversTrigger(sp.Table, m) {
				continue // part of an unfinished reload: another mount of the trigger is listed
			}
			options, err := autofs.ParseOptions(m.VFSOptions)
			if err != nil {
				return nil, fmt.Errorf("autofs mount at %q: %w", m.Mountpoint, err)
			}
			if c.IsParking(m) {
				options.Type = autofs.Direct // the type of the trigger
			}
			found = append(found, Mount{
				Namespace: sp.ID, Main: i == 0, NamespacePID: sp.Process.PID(),
				ID: m.ID, Path: m.Mountpoint, Device: mounts.DeviceOf(m), Source: m.Source, Options: options,
				Covers: covers(sp.Table.Covers(m)), Below: covers(sp.Table.Descendants(m)),
				Parking: c.IsParking(m), UnderParking: c.IsParking(sp.Table.LowestCover(m)),
			})
			if covered += len(found[len(found)-1].Below); covered > maxCovers {
				return nil, fmt.Errorf("there are more than %d mounts on the container's autofs mounts, the limit: unmount some, then repair again", maxCovers)
			}
		}
	}
	return found, nil
}

func covers(list []*mounts.Mount) []Cover {
	var found []Cover
	for _, m := range list {
		found = append(found, Cover{ID: m.ID, Type: m.FSType, Path: m.Mountpoint, Device: mounts.DeviceOf(m)})
	}
	return found
}

// FindMasters sets the master of each mount: the process that reads the mount's pipe.
// That is nearly always the leader of the process group in the mount options. If it is
// not, FindMasters searches the container's processes, then all others, once for all mounts.
func (c *Container) FindMasters(list []Mount) error {
	byPipe := map[uint64]Master{}
	readers := map[int]Master{} // by pid; PipeFD differs between their mounts
	homes := map[int]uint64{}   // the masters' mount namespaces, by pid
	holds := map[int]map[int]bool{}
	inside, outside := sync.OnceValue(func() map[uint64]int { return readersOf(c.Members) }), sync.OnceValue(c.outsideReaders)
	for i := range list {
		options := list[i].Options
		list[i].Master = Master{Identity: master.Identity{Kind: master.None}}
		m, known := byPipe[options.PipeInode]
		switch {
		case list[i].Parking:
			m, known = c.parkedMaster(c.parkingAt(list[i].Path, list[i].Device)), true
			c.addNamespace(homes, m.PID)
		case options.Catatonic() || !options.HasPipe:
			continue
		}
		if !known {
			var err error
			if m, err = c.readerOf(options.PipeInode, options.ProcessGroup, readers); err == nil && m.Kind == master.None {
				if pid := inside()[options.PipeInode]; pid != 0 {
					m, err = c.readerOf(options.PipeInode, pid, readers)
				} else if pid := outside()[options.PipeInode]; pid != 0 {
					m = outsideMaster(pid)
				}
			}
			if err != nil {
				return err
			}
			byPipe[options.PipeInode] = m
			c.addNamespace(homes, m.PID)
		}
		list[i].Master = m
		if home := homes[m.PID]; home != 0 {
			list[i].Main = list[i].Namespace == home
			list[i].Master.Nested = home != c.Main().ID
		}
		if p := c.Masters[m.PID]; p != nil && m.Kind == master.Other {
			if holds[m.PID] == nil {
				holds[m.PID] = mountsOfFiles(p.Process)
			}
			list[i].Master.HoldsRoot = holds[m.PID][list[i].ID]
		}
	}
	clear(c.own)
	for i := range list {
		c.own[list[i].Key()] = !list[i].Outside()
	}
	return nil
}

// addNamespace adds the mount namespace of a master to homes.
func (c *Container) addNamespace(homes map[int]uint64, pid int) {
	if p := c.Masters[pid]; p != nil && homes[pid] == 0 {
		if id, err := p.Namespace("mnt"); err == nil {
			homes[pid] = id.Inode
		}
	}
}

// readerOf returns a process if it has the read end of a pipe open, else one of the kind
// [master.None].
func (c *Container) readerOf(pipe uint64, pid int, readers map[int]Master) (Master, error) {
	none := Master{Identity: master.Identity{Kind: master.None}}
	if pid <= 0 {
		return none, nil
	}
	if m, known := readers[pid]; known {
		fd, reads := c.pipes[pid][pipe]
		if !reads {
			return none, nil
		}
		m.PipeFD = fd
		return m, nil
	}
	p, pipes, err := c.pipesOf(pid)
	if err != nil {
		return none, nil // it has ended
	}
	fd, reads := pipes[pipe]
	if !reads {
		return none, nil
	}
	if p == nil {
		readers[pid] = outsideMaster(pid)
		return readers[pid], nil
	}
	id, err := master.Identify(p.Process)
	if err != nil {
		return none, err
	}
	readers[pid] = Master{Identity: id, StartTime: p.StartTime(), PipeFD: fd, Executed: p.Executed()}
	return readers[pid], nil
}

// outsideMaster returns a master that is not a process of the container. Only its pid is
// known.
func outsideMaster(pid int) Master {
	return Master{Identity: master.Identity{Kind: master.Outside, PID: pid}}
}

// outsideReaders returns the readers of all pipes of the machine, except the container's
// processes: a master outside need not be the leader of its process group.
func (c *Container) outsideReaders() map[uint64]int {
	members := map[int]bool{}
	for _, pid := range c.Members {
		members[pid] = true
	}
	entries, _ := os.ReadDir("/proc")
	var others []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && !members[pid] {
			others = append(others, pid)
		}
	}
	return readersOf(others)
}

// readersOf returns the first of the processes that reads a pipe, by the pipe's inode number.
func readersOf(pids []int) map[uint64]int {
	found := map[uint64]int{}
	for _, pid := range pids {
		p, err := nsenter.Open(pid)
		if err != nil {
			continue // it has ended
		}
		pipes, _ := master.Pipes(p) // none if it ends meanwhile
		p.Close()
		for pipe := range pipes {
			if found[pipe] == 0 {
				found[pipe] = pid
			}
		}
	}
	return found
}

// pipesOf opens a process, unless it is open, and lists the pipes that it reads. The
// process is nil if it is not the container's.
func (c *Container) pipesOf(pid int) (*owner.Member, map[uint64]int, error) {
	if p := c.Masters[pid]; p != nil && p.Alive() == nil {
		return p, c.pipes[pid], nil
	}
	p, err := nsenter.Open(pid)
	if err != nil {
		return nil, nil, err
	}
	pipes, err := master.Pipes(p)
	if err != nil || len(pipes) == 0 {
		p.Close()
		return nil, nil, errors.Join(err, errNoPipes)
	}
	if old := c.Masters[pid]; old != nil {
		old.Close()
		delete(c.Masters, pid)
	}
	c.pipes[pid] = pipes
	member, err := c.Owner.Admit(p)
	if err != nil {
		p.Close()
		if errors.Is(err, owner.ErrOutside) {
			return nil, pipes, nil
		}
		return nil, nil, err
	}
	c.Masters[pid] = member
	return member, pipes, nil
}

// refreshPipes reads the pipes of the masters again, which may have changed.
func (c *Container) refreshPipes() {
	clear(c.pipes)
	for pid, p := range c.Masters {
		if pipes, err := master.Pipes(p.Process); err == nil {
			c.pipes[pid] = pipes
		}
	}
}

var errNoPipes = errors.New("process reads no pipe")

// HasFileOn reports whether the process has a file open on one of the mounts with the
// given ids.
func HasFileOn(p *nsenter.Process, mountIDs map[int]bool) bool {
	for id := range mountsOfFiles(p) {
		if mountIDs[id] {
			return true
		}
	}
	return false
}

// mountsOfFiles returns the ids of the mounts on which the process has files open.
func mountsOfFiles(p *nsenter.Process) map[int]bool {
	found := map[int]bool{}
	names, _ := p.ReadDirNames("fdinfo")
	for _, name := range names {
		if id, err := MountOfDescriptor(p, name); err == nil {
			found[id] = true
		}
	}
	return found
}

// MountOfDescriptor returns the id of the mount of a descriptor's file, from the line
// "mnt_id:" in fdinfo (proc_pid_fdinfo(5)). name is the descriptor's number.
func MountOfDescriptor(p *nsenter.Process, name string) (int, error) {
	info, err := p.ReadFile("fdinfo/"+name, 1<<16)
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(info), "\nmnt_id:\t")
	number, _, _ := strings.Cut(rest, "\n")
	return strconv.Atoi(number)
}
