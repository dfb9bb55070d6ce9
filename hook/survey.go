package hook

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// survey describes every autofs mount of the scene, without asking anybody in
// the container: it works while all processes are stopped.
func (s *scene) survey() ([]Mount, error) {
	found, err := s.listAutofs()
	if err != nil {
		return nil, err
	}
	s.forgetPipes()
	return found, s.findMasters(found)
}

// Limits of what is looked at in one container, in all of its mount namespaces
// together. Its own root may make 100,000 mounts in each (sysctl fs.mount-max).
const (
	maxAutofs = 1 << 14 // autofs mounts; each takes half a kilobyte of the report
	maxCovers = 1 << 18 // mounts on each of these, added up
)

// listAutofs is survey without the masters.
func (s *scene) listAutofs() ([]Mount, error) {
	var found []Mount
	covered := 0
	for i, sp := range s.spaces {
		if sp.table == nil {
			continue
		}
		if len(found)+len(sp.table.Autofs()) > maxAutofs {
			return nil, fmt.Errorf("the container's mount namespaces have more than %d autofs mounts: that many are not looked at", maxAutofs)
		}
		for _, m := range sp.table.Autofs() {
			options, err := autofs.ParseOptions(m.VFSOptions)
			if err != nil {
				return nil, fmt.Errorf("autofs mount at %q: %w", m.Mountpoint, err)
			}
			found = append(found, Mount{
				Namespace: sp.id, Main: i == 0, NamespacePID: sp.process.PID(),
				ID: m.ID, Path: m.Mountpoint, Device: mounts.DeviceOf(m), Source: m.Source, Options: options,
				Covers: covers(sp.table.Stack(m)), Below: covers(sp.table.On(m)),
			})
			if covered += len(found[len(found)-1].Below); covered > maxCovers {
				return nil, fmt.Errorf("there are more than %d mounts on the container's autofs mounts: that many are not looked at", maxCovers)
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

// findMasters finds the process that reads each mount's pipe. That is nearly
// always the leader of the process group in the mount options; else all of the
// container's processes are searched.
func (s *scene) findMasters(list []Mount) error {
	byPipe := map[uint64]Master{}
	readers := map[int]Master{} // by pid, what is the same for all their pipes
	for i := range list {
		options := list[i].Options
		list[i].Master = Master{Identity: master.Identity{Kind: master.None}}
		if options.Catatonic() || !options.HasPipe {
			continue
		}
		m, known := byPipe[options.PipeInode]
		if !known {
			var err error
			if m, err = s.readerOf(options.PipeInode, []int{options.ProcessGroup}, readers); err != nil {
				return err
			}
			if m.Kind == master.None {
				if m, err = s.readerOf(options.PipeInode, s.members, readers); err != nil {
					return err
				}
			}
			byPipe[options.PipeInode] = m
		}
		list[i].Master = m
		if p := s.masters[m.PID]; p != nil && m.Kind == master.Other {
			list[i].Master.HoldsRoot = holdsMount(p, list[i].ID)
		}
	}
	return nil
}

// readerOf looks for the process that has the read end of a pipe open.
func (s *scene) readerOf(pipe uint64, candidates []int, readers map[int]Master) (Master, error) {
	none := Master{Identity: master.Identity{Kind: master.None}}
	for _, pid := range candidates {
		if pid <= 0 {
			continue
		}
		if m, known := readers[pid]; known {
			if fd, reads := s.pipes[pid][pipe]; reads {
				m.PipeFD = fd
				return m, nil
			}
			continue
		}
		p, pipes, err := s.pipesOf(pid)
		if err != nil {
			continue // ended meanwhile
		}
		fd, reads := pipes[pipe]
		if !reads {
			continue
		}
		id, err := master.Identify(p)
		if err != nil {
			return none, err
		}
		readers[pid] = Master{Identity: id, StartTime: p.StartTime(), PipeFD: fd, Executed: p.Executed()}
		return readers[pid], nil
	}
	return none, nil
}

// pipesOf opens a process, once, and lists the pipes it reads.
func (s *scene) pipesOf(pid int) (*nsenter.Process, map[uint64]int, error) {
	if p := s.masters[pid]; p != nil && p.Alive() == nil {
		return p, s.pipes[pid], nil
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
	if old := s.masters[pid]; old != nil {
		old.Close()
	}
	s.masters[pid], s.pipes[pid] = p, pipes
	return p, pipes, nil
}

// forgetPipes makes pipesOf look anew: a master's files change.
func (s *scene) forgetPipes() {
	for pid, p := range s.masters {
		if pipes, err := master.Pipes(p); err == nil {
			s.pipes[pid] = pipes
		} else {
			s.pipes[pid] = nil
		}
	}
}

var errNoPipes = errors.New("the process reads no pipe")

// holdsMount reports whether the process has a file open on the mount with the
// given id (fdinfo's line "mnt_id:", proc_pid_fdinfo(5)).
func holdsMount(p *nsenter.Process, mountID int) bool {
	names, err := p.ReadDirNames("fdinfo")
	if err != nil {
		return false
	}
	want := "\nmnt_id:\t" + strconv.Itoa(mountID) + "\n"
	for _, name := range names {
		info, err := p.ReadFile("fdinfo/"+name, 1<<16)
		if err == nil && strings.Contains(string(info), want) {
			return true
		}
	}
	return false
}
