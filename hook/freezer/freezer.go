// Package freezer stops the processes of a container for a moment, by freezing
// their control groups: version 2 (cgroup.freeze) or the freezer hierarchy of
// version 1 (freezer.state).
//
// A group is only frozen if all processes in and below it are the container's:
// never one that holds CRIU, the engine or ourselves. Before the first group is
// frozen a guard is started, a process of our own that thaws all groups when we
// end without having done so, or when the time is over.
package freezer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/cgroup"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/guard"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/dirs"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// ErrShared means that a control group of the container also holds other
// processes, or that there is none.
var ErrShared = errors.New("the container has no control groups of its own that can be frozen")

// settleTime bounds how long we wait for a group to report that it is frozen. A
// process that sleeps in the kernel, such as one that waits on an automount,
// keeps it from reporting that, but cannot run any more either.
const settleTime = 50 * time.Millisecond

// group is one control group that can be frozen.
type group struct {
	dir     string
	control *os.File // open for writing
	freeze  string
	thaw    string
}

// Frozen are frozen control groups.
type Frozen struct {
	groups []group
	guard  guard.Ref
}

// Request says what to freeze.
type Request struct {
	// Members lists the container's processes. It is called again if one of
	// them has started another meanwhile.
	Members func() ([]int, error)
	// Spare are processes that must go on: their groups are left alone.
	Spare []int
	// Until is the process whose end thaws everything, if nobody has done so
	// before; nil for this one.
	Until *nsenter.Process
	// Version2Only leaves a container alone whose groups are of version 1.
	Version2Only bool
}

// attempts bounds how often the processes are listed.
const attempts = 3

// Freeze freezes the control groups of the container's processes.
func Freeze(ctx context.Context, r Request) (*Frozen, error) {
	var dirs []string
	for try := 1; ; try++ {
		members, err := r.Members()
		if err != nil {
			return nil, err
		}
		if dirs, err = r.groupsOf(members); err == nil {
			break
		}
		if try == attempts || !errors.Is(err, ErrShared) {
			return nil, err
		}
	}
	f := &Frozen{}
	for _, dir := range dirs {
		g, err := openGroup(dir)
		if err != nil {
			f.close()
			return nil, err
		}
		f.groups = append(f.groups, g)
	}
	var err error
	var actions []guard.Action
	for _, g := range f.groups {
		actions = append(actions, guard.Action{File: g.control, Word: g.thaw})
	}
	if f.guard, err = guard.Start(r.Until, actions); err != nil {
		f.close()
		return nil, err
	}
	for _, g := range f.groups {
		if _, err := g.control.WriteString(g.freeze); err != nil && !errors.Is(err, unix.ENODEV) {
			return nil, errors.Join(fmt.Errorf("freeze the container: %w", err), f.Thaw())
		}
	}
	for _, g := range f.groups {
		g.wait(ctx)
	}
	return f, nil
}

// Thaw lets the processes run again.
func (f *Frozen) Thaw() error {
	var errs []error
	for _, g := range f.groups {
		if _, err := g.control.WriteString(g.thaw); err != nil && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("thaw the container: %w", err)) // ENODEV: the group is gone
		}
	}
	if len(errs) == 0 {
		f.guard.Stop() // else it tries again
	}
	f.close()
	return errors.Join(errs...)
}

func (f *Frozen) close() {
	for _, g := range f.groups {
		g.control.Close()
	}
}

// Ref names frozen groups in a record.
type Ref struct {
	Groups []string  `json:"groups"`
	Guard  guard.Ref `json:"guard"`
}

// Leave ends this process's hold on the groups, which stay frozen until
// somebody calls Thaw on what Resume returns, or the guard does it.
func (f *Frozen) Leave() Ref {
	r := Ref{Guard: f.guard}
	for _, g := range f.groups {
		r.Groups = append(r.Groups, g.dir)
	}
	f.close()
	return r
}

// Resume continues with groups that another process has left frozen. Groups
// that are gone are left out.
func Resume(r Ref) *Frozen {
	f := &Frozen{guard: r.Guard}
	for _, dir := range r.Groups {
		if g, err := openGroup(dir); err == nil {
			f.groups = append(f.groups, g)
		}
	}
	return f
}

// groupsOf finds the directories of the groups that hold the processes, but not
// those to be spared, and nobody else.
func (r Request) groupsOf(members []int) ([]string, error) {
	find := cgroup.Mounts
	if r.Version2Only {
		find = cgroup.Version2
	}
	hierarchies, err := find()
	if err != nil {
		return nil, err
	}
	ours := make(map[int]bool, len(members))
	spared := map[string]bool{}
	for _, pid := range r.Spare {
		dir, err := r.groupOf(pid, hierarchies)
		if err != nil {
			return nil, err
		}
		spared[dir] = true
	}
	var dirs []string
	for _, pid := range members {
		ours[pid] = true
		dir, err := r.groupOf(pid, hierarchies)
		if err != nil {
			return nil, err
		}
		if dir != "" && !spared[dir] && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	if len(dirs) == 0 {
		return nil, ErrShared
	}
	for _, pid := range r.Spare {
		delete(ours, pid) // and so no group above theirs is frozen either
	}
	for _, dir := range dirs {
		if err := holdsOnly(dir, ours); err != nil {
			return nil, err
		}
	}
	return dirs, nil
}

// groupOf returns the directory of the group through which a process can be
// frozen: of version 2 if it has one of its own there, else of version 1's
// freezer. It is "" for a process that has ended.
func (r Request) groupOf(pid int, hierarchies cgroup.Hierarchies) (string, error) {
	p, err := nsenter.Open(pid)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer p.Close()
	groups, err := cgroup.Of(p)
	if err != nil {
		return "", err
	}
	versions := []string{"", "freezer"}
	if r.Version2Only {
		versions = versions[:1]
	}
	for _, controllers := range versions {
		for _, g := range groups {
			if g.Path == "/" || g.Controllers != controllers && !slices.Contains(strings.Split(g.Controllers, ","), controllers) {
				continue
			}
			if dir, mounted := hierarchies.Dir(g); mounted {
				return dir, nil
			}
		}
	}
	return "", fmt.Errorf("process %d: %w", pid, ErrShared)
}

// holdsOnly checks that a group, and all groups below it, hold only processes
// of the container. One that is removed meanwhile holds none.
func holdsOnly(dir string, members map[int]bool) error {
	gone := func(err error) bool { return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) }
	data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil && !gone(err) {
		return fmt.Errorf("control groups of the container: %w", err)
	}
	for _, word := range strings.Fields(string(data)) {
		if pid, err := strconv.Atoi(word); err != nil || !members[pid] {
			return fmt.Errorf("%s also holds process %s: %w", dir, word, ErrShared)
		}
	}
	entries, err := dirs.Entries(dir)
	if err != nil && !gone(err) {
		return fmt.Errorf("control groups of the container: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := holdsOnly(filepath.Join(dir, e.Name()), members); err != nil {
				return err
			}
		}
	}
	return nil
}

func openGroup(dir string) (group, error) {
	g := group{dir: dir, freeze: "1", thaw: "0"}
	name := "cgroup.freeze"
	if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
		g.freeze, g.thaw, name = "FROZEN", "THAWED", "freezer.state"
	}
	control, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return group{}, fmt.Errorf("freeze the container: %w", err)
	}
	g.control = control
	return g, nil
}

// wait returns when the group is frozen or after settleTime.
func (g group) wait(ctx context.Context) {
	end := time.Now().Add(settleTime)
	for time.Now().Before(end) && ctx.Err() == nil {
		if g.frozen() {
			return
		}
		time.Sleep(500 * time.Microsecond)
	}
}

func (g group) frozen() bool {
	if g.freeze == "FROZEN" {
		state, err := os.ReadFile(filepath.Join(g.dir, "freezer.state"))
		return err == nil && strings.TrimSpace(string(state)) == "FROZEN"
	}
	events, err := os.ReadFile(filepath.Join(g.dir, "cgroup.events"))
	return err == nil && strings.Contains(string(events), "frozen 1")
}
