package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// initScope is the group into which systemd moves itself, beneath the group of its
// container (systemd.special(7)).
const initScope = "/init.scope"

// Own returns the control group of a container in the hierarchy of version 2,
// relative to the caller's cgroup namespace root: that of its first process, without
// init.scope.
func Own(init *nsenter.Process) (string, error) {
	group, err := Version2Of(init)
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(group, initScope), nil
}

// Version2Of returns a process's group in the hierarchy of version 2, relative to
// the caller's cgroup namespace root.
func Version2Of(p *nsenter.Process) (string, error) {
	groups, err := Of(p)
	if err != nil {
		return "", err
	}
	for _, g := range groups {
		if g.Controllers == "" {
			return g.Path, nil
		}
	}
	return "", fmt.Errorf("process %d: no control group of version 2", p.PID())
}

// CheckOwn refuses a group that cannot be a container's own: the top of the hierarchy,
// and one that contains the given process of the host, also in a group beneath it.
func CheckOwn(group string, host *nsenter.Process) error {
	if !path.IsAbs(group) || path.Clean(group) != group || group == "/" || strings.HasPrefix(group, "/..") {
		return fmt.Errorf("control group %q is not that of a container", group)
	}
	if host == nil {
		return nil
	}
	its, err := Version2Of(host)
	if err != nil {
		return err
	}
	if its == group || strings.HasPrefix(its, group+"/") {
		return fmt.Errorf("control group %q is not that of a container: process %d, which restores it, is there too", group, host.PID())
	}
	return nil
}

// OpenGroup opens a group of the hierarchy of version 2 in a mount of it in the caller's
// namespace. It follows no symbolic link and crosses no other mount.
func OpenGroup(group string) (*os.File, error) {
	mounts, err := version2()
	if err != nil {
		return nil, err
	}
	for _, mount := range mounts {
		dir, ok := hierarchies{mount}.Dir(Membership{Path: group})
		if !ok {
			continue
		}
		top, err := os.OpenFile(mount.Mountpoint, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		defer top.Close()
		fs, err := sys.StatFS(top)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", mount.Mountpoint, err)
		}
		if fs.Type != unix.CGROUP2_SUPER_MAGIC {
			return nil, fmt.Errorf("%s: not a mount of cgroup version 2", mount.Mountpoint)
		}
		return openBeneath(top, strings.TrimPrefix(strings.TrimPrefix(dir, mount.Mountpoint), "/"))
	}
	return nil, fmt.Errorf("control group %q: no mount of cgroup version 2 shows it", group)
}

// openBeneath opens a directory beneath another one, on the same mount; "" is that one.
func openBeneath(dir *os.File, rel string) (*os.File, error) {
	if rel == "" {
		rel = "."
	}
	return sys.OpenAt2(dir, rel, unix.O_PATH|unix.O_DIRECTORY,
		unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS|unix.RESOLVE_NO_XDEV)
}

// Bounds of [Create]. Units are rarely nested deeper than a few slices.
const (
	MaxDepth  = 16
	MaxGroups = 4096
	maxName   = 255
)

// Create creates the missing groups with the given paths relative to own, and their
// parents. Each belongs to the owner of its parent. It returns the paths of the created
// groups, parents first. The error is the first one, with the number of the others.
func Create(own *os.File, paths []string) (created []string, err error) {
	failed := 0
	for _, rel := range withParents(paths) {
		isNew, makeErr := create(own, rel)
		if makeErr != nil {
			if failed++; failed == 1 {
				err = makeErr
			}
		}
		if isNew {
			created = append(created, rel)
		}
	}
	if failed > 1 {
		err = fmt.Errorf("%w; the same or another error for %d more", err, failed-1)
	}
	return created, err
}

// withParents lists the paths and all of their parents, each once, parents first.
func withParents(paths []string) []string {
	all := make(map[string]bool)
	for _, p := range paths {
		for ; p != "." && p != "/" && !all[p]; p = path.Dir(p) {
			all[p] = true
		}
	}
	list := make([]string, 0, len(all))
	for p := range all {
		list = append(list, p)
	}
	slices.Sort(list) // a parent sorts before its children
	return list
}

func create(own *os.File, rel string) (isNew bool, err error) {
	parent, err := openBeneath(own, strings.TrimSuffix(path.Dir(rel), "."))
	if err != nil {
		return false, fmt.Errorf("create control group: %w", err)
	}
	defer parent.Close()
	switch err := mkdirAsOwner(parent, path.Base(rel)); {
	case errors.Is(err, unix.EEXIST):
		return false, nil
	case errors.Is(err, unix.EAGAIN):
		return false, fmt.Errorf("create control group: the hierarchy is full (cgroup.max.descendants, cgroup.max.depth): %w", err)
	case err != nil:
		return false, fmt.Errorf("create control group: %w", err)
	}
	return true, nil
}

// mkdirAsOwner creates a group with the owner of its parent. A new group and its files
// belong to the file system user id of the creator (cgroup_mkdir, kernel/cgroup/cgroup.c).
func mkdirAsOwner(parent *os.File, name string) error {
	st, err := sys.Stat(parent)
	if err != nil {
		return err
	}
	if st.Uid == 0 && st.Gid == 0 {
		return sys.MkdirAt(parent, name, 0o755)
	}
	return sys.MkdirAtAs(parent, name, 0o755, int(st.Uid), int(st.Gid))
}

// Remove removes the groups that [Create] created, children first. A group that is not
// empty stays.
func Remove(own *os.File, created []string) error {
	var errs []error
	for _, rel := range slices.Backward(created) {
		parent, err := openBeneath(own, strings.TrimSuffix(path.Dir(rel), "."))
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err == nil {
			err = sys.RmdirAt(parent, path.Base(rel))
			parent.Close()
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("remove control group %q: %w", rel, err))
		}
	}
	return errors.Join(errs...)
}

// controllers are the prefixes of the names of interface files.
var controllers = []string{"cgroup", "cpu", "cpuset", "io", "memory", "hugetlb", "pids", "rdma", "misc", "perf_event", "dmem", "irq", "debug"}

// IsInterfaceFile reports whether a name in a group is that of an interface file of the
// kernel, which starts with its controller (Documentation/admin-guide/cgroup-v2.rst).
// systemd gives no group such a name (cg_escape).
func IsInterfaceFile(name string) bool {
	controller, _, dotted := strings.Cut(name, ".")
	return dotted && slices.Contains(controllers, controller)
}

// CheckName refuses a name that no group can or should have.
func CheckName(name string) error {
	switch {
	case name == "" || name == "." || name == ".." || len(name) > maxName:
	case strings.IndexFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == '/' }) >= 0:
	case IsInterfaceFile(name):
	default:
		return nil
	}
	return fmt.Errorf("%q: invalid name of a control group", name[:min(len(name), maxName)])
}
