package hook

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/owner"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// scene is the container as the kernel shows it now: the open processes and
// files that a Snapshot, which is plain data, describes.
type Container struct {
	init   *nsenter.Process
	owner  *owner.Container
	spaces []*Space
	// masters by pid, of the container's own processes only.
	masters map[int]*owner.Member
	// pipes are what processes read: descriptor by inode number, by pid.
	pipes map[int]map[uint64]int
	// managers are connections to systemd, by the pid of the systemd.
	managers map[int]*master.Manager
	// silent are the errors of systemds that could not be reached, by pid.
	silent map[int]error
	// roots are open autofs roots, by namespace and mount id.
	roots map[rootKey]*os.File
	// parkings are the parking mounts that are known.
	parkings []*Parking
	// own are the mounts that the last survey found not to be served from outside.
	own map[rootKey]bool
	// members are the pids of the container's processes.
	members []int
}

// space is one of the container's mount namespaces, with a process in it.
type Space struct {
	id      uint64
	process *nsenter.Process
	table   *mounts.Table
}

type rootKey struct {
	namespace uint64
	mount     int
}

// look opens the container: every mount namespace that its processes are in,
// and its mount table. It enters no namespace and blocks on nothing.
func OpenContainer(init *nsenter.Process, everyone bool) (*Container, error) {
	if err := init.CheckForeign(); err != nil {
		return nil, err
	}
	s := &Container{
		init:     init,
		owner:    owner.Of(init),
		masters:  map[int]*owner.Member{},
		pipes:    map[int]map[uint64]int{},
		managers: map[int]*master.Manager{},
		silent:   map[int]error{},
		roots:    map[rootKey]*os.File{},
		own:      map[rootKey]bool{},
	}
	var err error
	if s.members, err = init.Descendants(); err != nil {
		return nil, err
	}
	seen := map[nsenter.NamespaceID]bool{}
	for _, pid := range s.members {
		if seen[nsenter.MountNamespaceOf(pid)] {
			continue // most are
		}
		p, err := nsenter.Open(pid)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			s.close()
			return nil, err
		}
		id, err := p.Namespace("mnt")
		if err != nil || seen[id] || p.CheckForeign() != nil {
			p.Close() // ended meanwhile, known already, or not in the container
			continue
		}
		seen[id] = true
		s.spaces = append(s.spaces, &Space{id: id.Inode, process: p})
	}
	if everyone {
		if s.members, err = s.inhabitants(); err != nil {
			s.close()
			return nil, err
		}
	}
	return s, s.readTables()
}

// readTables reads all mount tables again. A namespace whose last process has
// ended has none any more.
func (s *Container) readTables() error {
	var budget mounts.Budget
	for _, sp := range s.spaces {
		table, err := budget.Of(sp.process)
		if hasNoTable(err) && sp != s.main() && s.represent(sp) {
			table, err = budget.Of(sp.process)
		}
		if err != nil && !hasNoTable(err) {
			return err
		}
		sp.table = table
	}
	if len(s.spaces) == 0 || s.spaces[0].table == nil {
		return fmt.Errorf("process %d: it has ended: %w", s.init.PID(), fs.ErrNotExist)
	}
	return nil
}

// hasNoTable reports whether a mount table could not be read because the process
// has ended: it leaves its namespaces a little before anything else shows that
// (EINVAL, ENOENT; mounts_open_common in fs/proc_namespace.c).
func hasNoTable(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, fs.ErrNotExist)
}

// represent finds another process in a mount namespace, in the place of one that
// has ended.
func (s *Container) represent(sp *Space) bool {
	now, _ := s.init.Descendants()
	for _, pid := range append(now, s.members...) {
		if nsenter.MountNamespaceOf(pid).Inode != sp.id {
			continue
		}
		p, err := nsenter.Open(pid)
		if err != nil {
			continue
		}
		id, err := p.Namespace("mnt")
		if err == nil && id.Inode == sp.id && !p.Ended() && p.CheckForeign() == nil {
			sp.process.Close()
			sp.process = p
			return true
		}
		p.Close()
	}
	return false
}

// hasAutofs reports whether any namespace shows an autofs mount.
func (s *Container) hasAutofs() bool {
	for _, sp := range s.spaces {
		if sp.table != nil && len(sp.table.Autofs()) > 0 {
			return true
		}
	}
	return false
}

func (s *Container) main() *Space { return s.spaces[0] }

func (s *Container) close() {
	for _, sp := range s.spaces {
		sp.process.Close()
	}
	for _, p := range s.masters {
		p.Close()
	}
	for _, m := range s.managers {
		m.Close()
	}
	for _, f := range s.roots {
		f.Close()
	}
}

// openRoots opens the roots of the wanted autofs mounts that are not open yet,
// however covered they are. It never blocks for a container with a pid namespace of its
// own: there an unanswered request is refused to us (ENOENT). On the mount of
// a master outside it might: only mounts are opened that a survey has found to be the
// container's own. Mounts that could not be opened are simply missing; the errors are
// joined.
func (s *Container) openRoots(ctx context.Context, wanted func(rootKey) bool) error {
	var errs []error
	for _, sp := range s.spaces {
		if sp.table == nil {
			continue
		}
		var want []*mounts.Mount
		for _, m := range sp.table.Autofs() {
			if key := (rootKey{sp.id, m.ID}); s.roots[key] == nil && s.own[key] && wanted(key) {
				want = append(want, m)
			}
		}
		if len(want) == 0 {
			continue
		}
		opened, err := openIn(ctx, sp.process, want)
		errs = append(errs, err)
		for id, f := range opened {
			s.roots[rootKey{sp.id, id}] = f
		}
	}
	return errors.Join(errs...)
}

func everyRoot(rootKey) bool { return true }

func openIn(ctx context.Context, p *nsenter.Process, want []*mounts.Mount) (map[int]*os.File, error) {
	control, err := autofs.OpenControl()
	if err != nil {
		return nil, err
	}
	result := make(chan map[int]*os.File, 1)
	err = p.InMountNamespace(ctx, func(*nsenter.Thread) error {
		defer control.Close() // here: at the deadline this goes on without us
		opened := map[int]*os.File{}
		var errs []error
		for _, m := range want {
			f, err := control.OpenMount(m.Mountpoint, mounts.DeviceOf(m))
			if err != nil {
				errs = append(errs, err)
				if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
					break // the others would say the same
				}
				continue
			}
			// A path may lead to another mount of the same superblock.
			if id, err := mounts.MountID(f); err != nil || id != m.ID {
				f.Close()
				errs = append(errs, fmt.Errorf("autofs mount %d at %q cannot be reached by its path: another mount hides it", m.ID, m.Mountpoint))
				continue
			}
			opened[m.ID] = f
		}
		result <- opened
		return errors.Join(errs...)
	})
	select {
	case opened := <-result:
		return opened, err
	default:
		return nil, err
	}
}

func (s *Container) mountSpaces() []mounts.Space {
	var list []mounts.Space
	for _, sp := range s.spaces {
		if sp.table != nil {
			list = append(list, mounts.Space{Process: sp.process, Table: sp.table})
		}
	}
	return list
}
