package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/systemd"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/owner"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Container is the container as the kernel shows it now: the open processes and
// files that a Snapshot, which is plain data, describes.
type Container struct {
	Init   *nsenter.Process
	Owner  *owner.Container
	Spaces []*Space
	// Masters by pid, of the container's own processes only.
	Masters map[int]*owner.Member
	// pipes are what processes read: descriptor by inode number, by pid.
	pipes map[int]map[uint64]int
	// Managers are connections to systemd, by the pid of the systemd.
	Managers map[int]*systemd.Manager
	// unreachable are the errors of systemds that could not be reached, by pid.
	unreachable map[int]error
	// Roots are open autofs roots, by namespace and mount id.
	Roots map[RootKey]*os.File
	// Parkings are the parking mounts that are known.
	Parkings []*Parking
	// own are the mounts that the last survey found not to be served from outside.
	own map[RootKey]bool
	// Members are the pids of the container's processes.
	Members []int
}

// Space is one of the container's mount namespaces, with a process in it.
type Space struct {
	ID      uint64
	Process *nsenter.Process
	Table   *mounts.Table
}

// RootKey names an autofs mount by mount namespace and mount id.
type RootKey struct {
	Namespace uint64
	Mount     int
}

// Open opens the container: every mount namespace that its processes are in,
// and its mount table. It enters no namespace and blocks on nothing.
func Open(init *nsenter.Process, everyone bool) (*Container, error) {
	if err := init.CheckForeign(); err != nil {
		return nil, err
	}
	s := &Container{
		Init:        init,
		Owner:       owner.Of(init),
		Masters:     map[int]*owner.Member{},
		pipes:       map[int]map[uint64]int{},
		Managers:    map[int]*systemd.Manager{},
		unreachable: map[int]error{},
		Roots:       map[RootKey]*os.File{},
		own:         map[RootKey]bool{},
	}
	var err error
	if s.Members, err = init.Descendants(); err != nil {
		return nil, err
	}
	seen := map[nsenter.NamespaceID]bool{}
	for _, pid := range s.Members {
		if seen[nsenter.MountNamespaceOf(pid)] {
			continue // most are
		}
		p, err := nsenter.Open(pid)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			s.Close()
			return nil, err
		}
		id, err := p.Namespace("mnt")
		if err != nil || seen[id] || p.CheckForeign() != nil {
			p.Close() // ended meanwhile, known already, or not in the container
			continue
		}
		seen[id] = true
		s.Spaces = append(s.Spaces, &Space{ID: id.Inode, Process: p})
	}
	if everyone {
		if s.Members, err = s.withVisitors(); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, s.ReadTables()
}

// ReadTables reads all mount tables again. A namespace whose last process has
// ended has none any more.
func (c *Container) ReadTables() error {
	var budget mounts.Budget
	for _, sp := range c.Spaces {
		table, err := budget.Of(sp.Process)
		if hasNoTable(err) && sp != c.Main() && c.replaceProcess(sp) {
			table, err = budget.Of(sp.Process)
		}
		if err != nil && !hasNoTable(err) {
			return err
		}
		sp.Table = table
	}
	if len(c.Spaces) == 0 || c.Spaces[0].Table == nil {
		return fmt.Errorf("process %d: it has ended: %w", c.Init.PID(), fs.ErrNotExist)
	}
	return nil
}

// hasNoTable reports whether a mount table could not be read because the process
// has ended: it leaves its namespaces a little before anything else shows that
// (EINVAL, ENOENT; mounts_open_common in fs/proc_namespace.c).
func hasNoTable(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, fs.ErrNotExist)
}

// replaceProcess finds another process in a mount namespace, in the place of one that
// has ended.
func (c *Container) replaceProcess(sp *Space) bool {
	now, _ := c.Init.Descendants()
	for _, pid := range append(now, c.Members...) {
		if nsenter.MountNamespaceOf(pid).Inode != sp.ID {
			continue
		}
		p, err := nsenter.Open(pid)
		if err != nil {
			continue
		}
		id, err := p.Namespace("mnt")
		if err == nil && id.Inode == sp.ID && !p.Ended() && p.CheckForeign() == nil {
			sp.Process.Close()
			sp.Process = p
			return true
		}
		p.Close()
	}
	return false
}

// HasAutofs reports whether any namespace shows an autofs mount.
func (c *Container) HasAutofs() bool {
	for _, sp := range c.Spaces {
		if sp.Table != nil && len(sp.Table.Autofs()) > 0 {
			return true
		}
	}
	return false
}

// Main is the mount namespace of the first process.
func (c *Container) Main() *Space { return c.Spaces[0] }

// Close closes all that is open.
func (c *Container) Close() {
	for _, sp := range c.Spaces {
		sp.Process.Close()
	}
	for _, p := range c.Masters {
		p.Close()
	}
	for _, m := range c.Managers {
		m.Close()
	}
	for _, f := range c.Roots {
		f.Close()
	}
}

// OpenRoots opens the roots of the wanted autofs mounts that are not open yet,
// however covered they are. It never blocks for a container with a pid namespace of its
// own: there an unanswered request is refused to us (ENOENT). On the mount of
// a master outside it might: only mounts are opened that a survey has found to be the
// container's own. Mounts that could not be opened are simply missing; the errors are
// joined.
func (c *Container) OpenRoots(ctx context.Context, wanted func(RootKey) bool) error {
	var errs []error
	for _, sp := range c.Spaces {
		if sp.Table == nil {
			continue
		}
		var want []*mounts.Mount
		for _, m := range sp.Table.Autofs() {
			if key := (RootKey{sp.ID, m.ID}); c.Roots[key] == nil && c.own[key] && wanted(key) {
				want = append(want, m)
			}
		}
		if len(want) == 0 {
			continue
		}
		opened, err := openIn(ctx, sp.Process, want)
		errs = append(errs, err)
		for id, f := range opened {
			c.Roots[RootKey{sp.ID, id}] = f
		}
	}
	return errors.Join(errs...)
}

// EveryRoot wants all roots.
func EveryRoot(RootKey) bool { return true }

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

// MountSpaces are the mount namespaces that could be read.
func (c *Container) MountSpaces() []mounts.Space {
	var list []mounts.Space
	for _, sp := range c.Spaces {
		if sp.Table != nil {
			list = append(list, mounts.Space{Process: sp.Process, Table: sp.Table})
		}
	}
	return list
}
