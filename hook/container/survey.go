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
func (c *Container) FindMasters(list []Mount) error {
	search := masterSearch{
		Container: c, byPipe: map[uint64]Master{}, readers: map[int]Master{},
		inside: sync.OnceValue(func() map[uint64]int { return readersOf(c.Members) }), outside: sync.OnceValue(c.outsideReaders),
	}
	homes := map[int]uint64{}       // the masters' mount namespaces, by pid
	holds := map[int]map[int]bool{} // the mounts that masters have files open on, by pid
	for i := range list {
		m := &list[i]
		var err error
		if m.Master, err = search.masterOf(m); err != nil {
			return err
		}
		pid := m.Master.PID
		p := c.Masters[pid]
		if p == nil {
			continue
		}
		if homes[pid] == 0 {
			if id, err := p.Namespace("mnt"); err == nil {
				homes[pid] = id.Inode
			}
		}
		if home := homes[pid]; home != 0 {
			m.Main = m.Namespace == home
			m.Master.Nested = home != c.Main().ID
		}
		if m.Master.Kind == master.Other {
			if holds[pid] == nil {
				holds[pid] = MountsOfFiles(p.Process)
			}
			m.Master.HoldsRoot = holds[pid][m.ID]
		}
	}
	clear(c.own)
	for i := range list {
		c.own[list[i].Key()] = !list[i].Outside()
	}
	return nil
}

// masterSearch finds the masters of several mounts.
type masterSearch struct {
	*Container
	byPipe  map[uint64]Master // masters that were found
	readers map[int]Master    // by pid; PipeFD differs between their mounts
	// The readers of all pipes, by pipe: the container's processes, and all others.
	inside, outside func() map[uint64]int
}

// noMaster is the master of a mount that no process serves.
func noMaster() Master { return Master{Identity: master.Identity{Kind: master.None}} }

// masterOf returns the master of a mount. That is nearly always the leader of the process
// group in the mount options. If it is not, masterOf searches the container's processes,
// then all others, once for all mounts.
func (s *masterSearch) masterOf(m *Mount) (Master, error) {
	if m.Parking {
		return s.parkedMaster(s.parkingAt(m.Path, m.Device)), nil
	}
	if m.Options.Catatonic() || !m.Options.HasPipe {
		return noMaster(), nil
	}
	pipe := m.Options.PipeInode
	if found, known := s.byPipe[pipe]; known {
		return found, nil
	}
	found, err := s.readerOf(pipe, m.Options.ProcessGroup)
	if err == nil && found.Kind == master.None {
		if pid := s.inside()[pipe]; pid != 0 {
			found, err = s.readerOf(pipe, pid)
		} else if pid := s.outside()[pipe]; pid != 0 {
			found = outsideMaster(pid)
		}
	}
	if err != nil {
		return noMaster(), err
	}
	s.byPipe[pipe] = found
	return found, nil
}

// readerOf returns a process if it has the read end of a pipe open, else [noMaster].
func (s *masterSearch) readerOf(pipe uint64, pid int) (Master, error) {
	if pid <= 0 {
		return noMaster(), nil
	}
	if m, known := s.readers[pid]; known {
		fd, reads := s.pipes[pid][pipe]
		if !reads {
			return noMaster(), nil
		}
		m.PipeFD = fd
		return m, nil
	}
	p, pipes, err := s.pipesOf(pid)
	if err != nil {
		return noMaster(), nil // it has ended
	}
	fd, reads := pipes[pipe]
	if !reads {
		return noMaster(), nil
	}
	if p == nil {
		s.readers[pid] = outsideMaster(pid)
		return s.readers[pid], nil
	}
	id, err := master.Identify(p.Process)
	if err != nil {
		return noMaster(), err
	}
	s.readers[pid] = Master{Identity: id, StartTime: p.StartTime(), PipeFD: fd, Executed: p.Executed()}
	return s.readers[pid], nil
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

// MountsOfFiles returns the ids of the mounts on which the process has files open.
func MountsOfFiles(p *nsenter.Process) map[int]bool {
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
