// Package cgroup finds the control groups of processes, moves processes of our own
// out of a container's, and creates groups within one (version 2 only). Version 1 hierarchies and version 2 are both
// understood (cgroups(7)).
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

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
			return nil, fmt.Errorf("process %d: /proc/%d/cgroup: odd line %q", p.PID(), p.PID(), line)
		}
		found = append(found, Membership{Controllers: fields[1], Path: fields[2]})
	}
	return found, nil
}

// MoveLike moves a process of ours into the control groups of another process,
// in every hierarchy that is mounted here.
func MoveLike(pid int, model *nsenter.Process) error {
	target, err := Of(model)
	if err == nil {
		err = Move(pid, target)
	}
	if err != nil {
		return fmt.Errorf("move process %d into the control groups of process %d: %w", pid, model.PID(), err)
	}
	return nil
}

// Move moves a process of ours into groups, in every hierarchy that is mounted
// here.
func Move(pid int, target []Membership) error {
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
			continue // there already; writing takes milliseconds
		}
		find := Mounts
		if m.Controllers == "" {
			find = Version2
		}
		mounts, err := find()
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		dir, ok := mounts.Dir(m)
		if !ok {
			continue // not mounted here: nothing can be moved in it
		}
		errs = append(errs, write(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(pid)))
	}
	return errors.Join(errs...)
}

// Open opens the directory of a process's group in the hierarchy of version 2.
func Open(p *nsenter.Process) (*os.File, error) {
	if p == nil {
		return nil, errors.New("no process whose control group is wanted")
	}
	groups, err := Of(p)
	if err != nil {
		return nil, err
	}
	mounts, err := Version2()
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		if dir, mounted := mounts.Dir(g); mounted && g.Controllers == "" {
			return os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		}
	}
	return nil, errors.New("no hierarchy of version 2 is mounted")
}

// Hierarchies are the cgroup file systems mounted in the caller's namespace.
type Hierarchies []*mountinfo.Info

// The usual place of the hierarchy of version 2 (file-hierarchy(7)), and the
// inode number of its topmost group.
const (
	unified     = "/sys/fs/cgroup"
	unifiedRoot = 1
)

// Version2 finds where version 2 is mounted. At its usual place it is found
// without reading the mount table, which may be long.
func Version2() (Hierarchies, error) {
	var fs unix.Statfs_t
	var st unix.Stat_t
	if unix.Statfs(unified, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC &&
		unix.Stat(unified, &st) == nil && st.Ino == unifiedRoot {
		return Hierarchies{{FSType: "cgroup2", Root: "/", Mountpoint: unified}}, nil
	}
	return Mounts()
}

// Mounts reads which hierarchies are mounted.
func Mounts() (Hierarchies, error) {
	list, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return nil, fmt.Errorf("mounted cgroup hierarchies: %w", err)
	}
	return list, nil
}

// Dir is the directory of a group, or false if its hierarchy is not mounted
// here or the mount does not show that group.
func (h Hierarchies) Dir(m Membership) (string, bool) {
	for _, mount := range h {
		// A group outside of our cgroup namespace's root is written "/../x".
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
		found := false
		for _, have := range options {
			found = found || have == want
		}
		if !found {
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
