package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// initScope is the group into which systemd moves itself beneath the group that
// its container was given (systemd.special(7)).
const initScope = "/init.scope"

// Own returns the control group of a container in the hierarchy of version 2,
// relative to the caller's cgroup namespace root: that of its first process,
// without the group that systemd makes for itself.
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

// CheckOwn refuses a group that is not a container's own: the top of the
// hierarchy, and one that holds the given process of the host, or groups with it.
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

// OpenGroup opens a group of the hierarchy of version 2 where that is mounted in
// the caller's namespace. No symbolic link and no other mount is followed.
func OpenGroup(group string) (*os.File, error) {
	mounts, err := Version2()
	if err != nil {
		return nil, err
	}
	for _, mount := range mounts {
		dir, ok := Hierarchies{mount}.Dir(Membership{Path: group})
		if !ok {
			continue
		}
		top, err := os.OpenFile(mount.Mountpoint, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		defer top.Close()
		var fs unix.Statfs_t
		if err := unix.Fstatfs(int(top.Fd()), &fs); err != nil {
			return nil, &os.PathError{Op: "fstatfs", Path: mount.Mountpoint, Err: err}
		}
		if fs.Type != unix.CGROUP2_SUPER_MAGIC {
			return nil, fmt.Errorf("%s: not a mount of cgroup version 2", mount.Mountpoint)
		}
		return openBeneath(top, strings.TrimPrefix(strings.TrimPrefix(dir, mount.Mountpoint), "/"))
	}
	return nil, fmt.Errorf("control group %q: no mount of cgroup version 2 shows it", group)
}

// openBeneath opens a directory beneath another one, on the same mount; "" is
// that one itself.
func openBeneath(dir *os.File, rel string) (*os.File, error) {
	if rel == "" {
		rel = "."
	}
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	for {
		fd, err := unix.Openat2(int(dir.Fd()), rel, &how)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), path.Join(dir.Name(), rel)), nil
		case !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN): // EAGAIN: a rename meanwhile
			return nil, &os.PathError{Op: "openat2", Path: path.Join(dir.Name(), rel), Err: err}
		}
	}
}

// Bounds of what [Create] creates. Units are rarely nested deeper than a few slices.
const (
	MaxDepth  = 16
	MaxGroups = 4096
	maxName   = 255
)

// Create creates the groups with the given paths relative to own, and those
// between, as far as they are absent. Each belongs to the owner of the group that it is
// in. It returns the paths of those that it created, parents first, and joins the
// first error with how many there were.
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

// withParents lists the paths and all above them, each once, parents first.
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
	slices.Sort(list) // a prefix sorts before what it begins
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
		return false, fmt.Errorf("create control group %q in %s: the hierarchy is full (cgroup.max.descendants, cgroup.max.depth)", path.Base(rel), parent.Name())
	case err != nil:
		return false, fmt.Errorf("create control group %q in %s: %w", path.Base(rel), parent.Name(), err)
	}
	return true, nil
}

// mkdirAsOwner creates a group with the owner of its parent. The kernel gives a
// new group and its files to the file system user id of who creates it
// (cgroup_mkdir, kernel/cgroup/cgroup.c).
func mkdirAsOwner(parent *os.File, name string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(parent.Fd()), &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if st.Uid != 0 || st.Gid != 0 {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		gid, err := unix.SetfsgidRetGid(int(st.Gid))
		if err != nil {
			return os.NewSyscallError("setfsgid", err)
		}
		uid, err := unix.SetfsuidRetUid(int(st.Uid))
		if err != nil {
			return os.NewSyscallError("setfsuid", err)
		}
		defer func() {
			_ = unix.Setfsuid(uid)
			_ = unix.Setfsgid(gid)
		}()
	}
	for {
		if err := unix.Mkdirat(int(parent.Fd()), name, 0o755); !errors.Is(err, unix.EINTR) {
			return err //nolint:wrapcheck // the caller says what and where
		}
	}
}

// Remove removes groups that [Create] created, children first, as far as they are
// empty.
func Remove(own *os.File, created []string) error {
	var errs []error
	for _, rel := range slices.Backward(created) {
		parent, err := openBeneath(own, strings.TrimSuffix(path.Dir(rel), "."))
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err == nil {
			err = unix.Unlinkat(int(parent.Fd()), path.Base(rel), unix.AT_REMOVEDIR)
			parent.Close()
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("remove control group %q: %w", rel, err))
		}
	}
	return errors.Join(errs...)
}

// controllers of version 2 and others whose names interface files begin with.
var controllers = []string{"cgroup", "cpu", "cpuset", "io", "memory", "hugetlb", "pids", "rdma", "misc", "perf_event", "dmem", "irq", "debug"}

// IsInterfaceFile reports whether a name in a group is one of the kernel's: such a
// file is named after its controller (Documentation/admin-guide/cgroup-v2.rst), and
// systemd gives no group such a name (cg_escape).
func IsInterfaceFile(name string) bool {
	controller, _, dotted := strings.Cut(name, ".")
	return dotted && slices.Contains(controllers, controller)
}

// CheckName refuses a name that no group can have, or should.
func CheckName(name string) error {
	switch {
	case name == "" || name == "." || name == ".." || len(name) > maxName:
	case strings.IndexFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == '/' }) >= 0:
	case IsInterfaceFile(name):
	default:
		return nil
	}
	return fmt.Errorf("%q: no name for a control group", name[:min(len(name), maxName)])
}
