package hook

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

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

// listAutofs is survey without the masters.
func (s *scene) listAutofs() ([]Mount, error) {
	var found []Mount
	for i, sp := range s.spaces {
		if sp.table == nil {
			continue
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

// date opens those mounts that may be stale, and notes when each was made.
func (s *scene) date(ctx context.Context, list []Mount) error {
	stale := map[rootKey]bool{}
	for i := range list {
		if !list[i].knownHealthy() {
			stale[rootKey{list[i].Namespace, list[i].ID}] = true
		}
	}
	if len(stale) == 0 {
		return nil
	}
	err := s.openRoots(ctx, func(key rootKey) bool { return stale[key] })
	for i := range list {
		if f := s.roots[rootKey{list[i].Namespace, list[i].ID}]; f != nil {
			list[i].Created = created(f)
		}
	}
	return err
}

// created is the ctime of an autofs root, which nobody changes after the kernel
// has made it (fs/autofs/inode.c, autofs_get_inode).
func created(root *os.File) time.Time {
	var st unix.Stat_t
	if err := unix.Fstat(int(root.Fd()), &st); err != nil {
		return time.Time{}
	}
	return time.Unix(st.Ctim.Unix())
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
		readers[pid] = Master{Identity: id, StartTime: p.StartTime(), PipeFD: fd, ProcessSince: processSince(p), Executed: p.Executed()}
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

// askSystemd adds what the masters' systemd says about their units. What
// cannot be learned is noted as the mount's problem, not returned: one systemd
// that does not answer must not keep the others from being repaired.
func (s *scene) askSystemd(ctx context.Context, list []Mount) {
	paths := map[int][]string{}
	for i := range list {
		m := &list[i]
		if m.Master.Kind == master.Systemd {
			m.Master.Unit = master.UnitNameFromPath(m.Path, "automount")
		}
		if m.Master.Kind == master.Systemd && m.Main && !m.knownHealthy() {
			paths[m.Master.PID] = append(paths[m.Master.PID], m.Path)
		}
	}
	for pid, wanted := range paths {
		units, err := s.automountUnits(ctx, pid, wanted)
		for i := range list {
			if list[i].Master.Kind != master.Systemd || list[i].Master.PID != pid || list[i].knownHealthy() {
				continue
			}
			m := &list[i].Master
			unit, known := units[list[i].Path]
			switch {
			case err != nil:
				m.Problem = err.Error()
			case !known:
				m.Problem = "systemd has no .automount unit for this path"
			default:
				m.Unit, m.UnitActive, m.UnitSince = unit.Name, unit.Active(), unit.Since
			}
		}
	}
	services := map[int]Master{}
	for i := range list {
		m := &list[i].Master
		if m.Kind != master.Automount || !list[i].Options.Type.Trigger() || list[i].Settled {
			continue
		}
		answer, known := services[m.PID]
		if !known {
			answer = *m
			s.describeService(ctx, &answer)
			services[m.PID] = answer
		}
		*m = answer
	}
}

// wake has every systemd that serves a mount go through its events once. A
// systemd that was checkpointed while it ignored mount events for a moment
// (src/core/mount.c, a rate limit) is not woken by its timer after the restore,
// and would hear of no mount until something else happens to it.
func (s *scene) wake(ctx context.Context, list []Mount) error {
	var errs []error
	seen := map[int]bool{}
	for i := range list {
		m := &list[i].Master
		if m.Kind != master.Systemd || seen[m.PID] {
			continue
		}
		seen[m.PID] = true
		manager, err := s.manager(ctx, m.PID)
		if err == nil {
			err = manager.Ping(ctx)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (s *scene) automountUnits(ctx context.Context, pid int, paths []string) (map[string]master.Unit, error) {
	manager, err := s.manager(ctx, pid)
	if err != nil {
		return nil, err
	}
	return manager.Automounts(ctx, paths)
}

// describeService asks the container's first process, if that is a systemd,
// for the service that an automount daemon is the main process of.
func (s *scene) describeService(ctx context.Context, m *Master) {
	if m.ContainerPID == 1 {
		m.Problem = "it is the container's first process, which cannot be started again without ending the container"
		return
	}
	first, err := master.Identify(s.init)
	if err != nil || first.Kind != master.Systemd {
		s.describeAlone(m)
		return
	}
	manager, err := s.manager(ctx, s.init.PID())
	if err != nil {
		m.Problem = err.Error()
		return
	}
	service, err := manager.ServiceOf(ctx, m.ContainerPID)
	if err != nil {
		m.Problem = err.Error()
		return
	}
	m.Unit, m.UnitActive, m.UnitSince = service.Name, true, service.Started
}

// returnTime is how long a systemd may be without its socket.
const returnTime = time.Second

// absent reports whether nobody listens on systemd's socket.
func absent(err error) bool {
	return errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist)
}

// manager returns the connection to the systemd with the given pid.
func (s *scene) manager(ctx context.Context, pid int) (*master.Manager, error) {
	if m := s.managers[pid]; m != nil {
		return m, nil
	}
	if err := s.silent[pid]; err != nil {
		return nil, err // asked before
	}
	p := s.masters[pid]
	if p == nil {
		p = s.init // asked about a service of its own
	}
	m, err := master.Connect(ctx, p)
	// A systemd that re-executes itself has no socket for a moment.
	for end := time.Now().Add(returnTime); absent(err) && time.Now().Before(end) && ctx.Err() == nil; {
		time.Sleep(returnInterval)
		m, err = master.Connect(ctx, p)
	}
	if err != nil {
		s.silent[pid] = err
		return nil, err
	}
	s.managers[pid] = m
	return m, nil
}
