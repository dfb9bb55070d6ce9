// Package cgroup finds the control groups of processes, moves helper processes out of a
// container's groups, and creates groups within one (version 2 only). It supports both
// version 1 and version 2 hierarchies (cgroups(7)).
package cgroup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Membership is one line of /proc/<pid>/cgroup: a hierarchy, named by its
// controllers ("" for version 2), and the process's group in it, relative to
// the caller's cgroup namespace root.
type Membership struct {
	Controllers string
	Path        string
}

// Of returns the groups of a process, one for each hierarchy.
func Of(p *nsenter.Process) ([]Membership, error) {
	data, err := p.ReadFile("cgroup", 1<<20)
	if err != nil {
		return nil, err
	}
	var found []Membership
	for line := range strings.Lines(string(data)) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 || !strings.HasPrefix(fields[2], "/") {
			return nil, fmt.Errorf("process %d: /proc/%d/cgroup: unexpected line %q", p.PID(), p.PID(), line)
		}
		found = append(found, Membership{Controllers: fields[1], Path: fields[2]})
	}
	return found, nil
}

// MoveLike moves a helper process into the control groups of another process, in every
// hierarchy that is mounted in the caller's namespace.
func MoveLike(pid int, model *nsenter.Process) error {
	target, err := Of(model)
	if err == nil {
		err = move(pid, target)
	}
	if err != nil {
		return fmt.Errorf("move process %d into the control groups of process %d: %w", pid, model.PID(), err)
	}
	return nil
}

func move(pid int, target []Membership) error {
	moved, err := nsenter.Open(pid)
	if err != nil {
		return err
	}
	defer moved.Close()
	have, err := Of(moved)
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range target {
		if slices.Contains(have, m) {
			continue // moving a process takes milliseconds
		}
		find := allMounts
		if m.Controllers == "" {
			find = version2
		}
		mounts, err := find()
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		dir, ok := mounts.Dir(m)
		if !ok {
			continue // not mounted
		}
		errs = append(errs, write(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(pid)))
	}
	return errors.Join(errs...)
}

// Open opens a process's group in the hierarchy of version 2.
func Open(p *nsenter.Process) (*os.File, error) {
	group, err := Version2Of(p)
	if err != nil {
		return nil, err
	}
	return OpenGroup(group)
}

// maxMembers bounds what is read of a group's list of processes.
const maxMembers = 1 << 20

// Members returns the processes that are in a group of version 2 itself. The kernel lists
// a process that the caller does not see as 0; those are left out.
func Members(group string) ([]int, error) {
	dir, err := OpenGroup(group)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	f, err := sys.OpenAt2(dir, "cgroup.procs", unix.O_RDONLY, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxMembers))
	if err != nil {
		return nil, err
	}
	var pids []int
	for field := range strings.FieldsSeq(string(text)) {
		if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// hierarchies are the cgroup mounts in the caller's namespace.
type hierarchies []*mountinfo.Info

// The usual place of the hierarchy of version 2 (file-hierarchy(7)), and the
// inode number of its topmost group.
const (
	unified     = "/sys/fs/cgroup"
	unifiedRoot = 1
)

// version2 returns the mounts of version 2. It reads the mount table, which may be long,
// only if version 2 is not at its usual place.
func version2() (hierarchies, error) {
	fs, err := sys.StatFSPath(unified)
	if err == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
		if st, err := sys.StatAt(nil, unified, 0); err == nil && st.Ino == unifiedRoot {
			return hierarchies{{FSType: "cgroup2", Root: "/", Mountpoint: unified}}, nil
		}
	}
	return allMounts()
}

// allMounts returns the mounts of all hierarchies.
func allMounts() (hierarchies, error) {
	list, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return nil, fmt.Errorf("mounted cgroup hierarchies: %w", err)
	}
	return list, nil
}

// Dir returns the directory of a group, or false if no mount shows it.
func (h hierarchies) Dir(m Membership) (string, bool) {
	for _, mount := range h {
		// A group outside the root of the caller's cgroup namespace is "/../x".
		if !serves(mount, m.Controllers) || m.Path == "/.." || strings.HasPrefix(m.Path, "/../") {
			continue
		}
		rel, err := filepath.Rel(mount.Root, m.Path)
		if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
			continue
		}
		return filepath.Join(mount.Mountpoint, rel), true
	}
	return "", false
}

func serves(mount *mountinfo.Info, controllers string) bool {
	if controllers == "" {
		return mount.FSType == "cgroup2"
	}
	if mount.FSType != "cgroup" {
		return false
	}
	options := strings.Split(mount.VFSOptions, ",")
	for _, want := range strings.Split(controllers, ",") {
		if !slices.Contains(options, want) {
			return false
		}
	}
	return true
}

func write(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
