package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/owner"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/systemd"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"

	"golang.org/x/sys/unix"
)

// Container is an open container: its processes, mount namespaces and masters.
type Container struct {
	// Init is the container's first process.
	Init *nsenter.Process
	// Owner decides which processes are the container's.
	Owner *owner.Container
	// Spaces are the mount namespaces; the first one is [Container.Main].
	Spaces []*Space
	// Masters are the masters that are processes of the container, by pid.
	Masters map[int]*owner.Member
	// pipes are the pipes that processes read: descriptor by inode number, by pid.
	pipes map[int]map[uint64]int
	// Managers are connections to systemd, by the pid of the systemd.
	Managers map[int]*systemd.Manager
	// unreachable are the errors of failed connections to systemd, by pid.
	unreachable map[int]error
	// Roots are the open roots of autofs mounts.
	Roots map[RootKey]*os.File
	// Parkings are the known parking mounts.
	Parkings []*Parking
	// own are the mounts of the last survey whose master is not outside.
	own map[RootKey]bool
	// Members are the pids of the container's processes.
	Members []int
	// Protect, if not nil, is called before a process of this program is in the
	// container's pid namespace. It may re-execute the program.
	Protect func()
}

// Space is one of the container's mount namespaces.
type Space struct {
	// ID is its inode number.
	ID uint64
	// Process is a process in it.
	Process *nsenter.Process
	// Table is nil if the last process in it has ended.
	Table *mounts.Table
}

// RootKey identifies an autofs mount by mount namespace and mount id.
type RootKey struct {
	Namespace uint64
	Mount     int
}

// Open opens the container with the given first process: every mount namespace of its
// processes, and the mount tables. With visitors, Members has also processes that
// entered the container from outside, such as those of "runc exec". Open enters no
// namespace and does not block. The error is nsenter.ErrOwnNamespace for a process in the
// host's mount namespace.
func Open(init *nsenter.Process, visitors bool) (*Container, error) {
	if err := init.CheckForeign(); err != nil {
		return nil, err
	}
	c := &Container{
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
	if c.Members, err = init.Descendants(); err != nil {
		return nil, err
	}
	seen := map[nsenter.NamespaceID]bool{}
	for _, pid := range c.Members {
		if seen[nsenter.MountNamespaceOf(pid)] {
			continue
		}
		p, err := nsenter.Open(pid)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			c.Close()
			return nil, err
		}
		id, err := p.Namespace("mnt")
		if err != nil || seen[id] || p.CheckForeign() != nil {
			p.Close() // it has ended, its namespace is known or not the container's
			continue
		}
		seen[id] = true
		c.Spaces = append(c.Spaces, &Space{ID: id.Inode, Process: p})
	}
	if visitors {
		if c.Members, err = c.withVisitors(); err != nil {
			c.Close()
			return nil, err
		}
	}
	return c, c.ReadTables()
}

// ReadTables reads all mount tables again. The table of a namespace whose last process
// has ended becomes nil. The error is fs.ErrNotExist if the first process has ended.
func (c *Container) ReadTables() error {
	var budget mounts.Budget
	current := sync.OnceValue(c.byNamespace)
	for _, sp := range c.Spaces {
		table, err := budget.Of(sp.Process)
		if hasNoTable(err) && sp != c.Main() && sp.replaceProcess(current()[sp.ID]) {
			table, err = budget.Of(sp.Process)
		}
		if err != nil && !hasNoTable(err) {
			return err
		}
		sp.Table = table
	}
	if len(c.Spaces) == 0 || c.Spaces[0].Table == nil {
		return fmt.Errorf("process %d: %w", c.Init.PID(), nsenter.ErrNoProcess)
	}
	return nil
}

// hasNoTable reports whether a mount table could not be read because the process has
// ended. A process leaves its namespaces before it is a zombie; then reading fails with
// EINVAL or ENOENT (mounts_open_common in fs/proc_namespace.c).
func hasNoTable(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, fs.ErrNotExist)
}

// byNamespace returns the pids of the container's processes by the inode number of their
// mount namespace.
func (c *Container) byNamespace() map[uint64][]int {
	pids := map[uint64][]int{}
	current, _ := c.Init.Descendants()
	for _, pid := range append(current, c.Members...) {
		id := nsenter.MountNamespaceOf(pid).Inode
		pids[id] = append(pids[id], pid)
	}
	return pids
}

// replaceProcess replaces the process of a mount namespace, which has ended, by one of the
// given ones that is in it. It reports whether there is one.
func (sp *Space) replaceProcess(pids []int) bool {
	for _, pid := range pids {
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

// HasAutofs reports whether any mount namespace shows an autofs mount.
func (c *Container) HasAutofs() bool {
	for _, sp := range c.Spaces {
		if sp.Table != nil && len(sp.Table.Autofs()) > 0 {
			return true
		}
	}
	return false
}

// Main returns the mount namespace of the first process.
func (c *Container) Main() *Space { return c.Spaces[0] }

// Close closes all processes, connections and roots.
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

// OpenRoots opens the roots of the wanted autofs mounts, beneath any covers, and adds
// them to Roots. Mounts with a master outside are not opened: the open could block
// there. On the others it does not block if the container has its own pid namespace: while
// a request is unanswered the open fails (ENOENT). The error joins those of all mounts
// that could not be opened.
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
		opened, err := openRootsIn(ctx, sp.Process, want)
		errs = append(errs, err)
		for id, f := range opened {
			c.Roots[RootKey{sp.ID, id}] = f
		}
	}
	return errors.Join(errs...)
}

// EveryRoot makes [Container.OpenRoots] open all roots.
func EveryRoot(RootKey) bool { return true }

// openRootsIn opens the roots of mounts in the mount namespace of p, by mount id.
func openRootsIn(ctx context.Context, p *nsenter.Process, want []*mounts.Mount) (map[int]*os.File, error) {
	control, err := autofs.OpenControl()
	if err != nil {
		return nil, err
	}
	result := make(chan map[int]*os.File, 1)
	err = p.InMountNamespace(ctx, func(*nsenter.Thread) error {
		defer control.Close() // here, since this thread outlives a deadline
		opened := map[int]*os.File{}
		var errs []error
		for _, m := range want {
			f, err := control.OpenMount(m.Mountpoint, mounts.DeviceOf(m))
			if err != nil {
				errs = append(errs, err)
				if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
					break // it is the same for the other mounts
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

// MountSpaces returns the mount namespaces that have a mount table.
func (c *Container) MountSpaces() []mounts.Space {
	var list []mounts.Space
	for _, sp := range c.Spaces {
		if sp.Table != nil {
			list = append(list, mounts.Space{Process: sp.Process, Table: sp.Table})
		}
	}
	return list
}
