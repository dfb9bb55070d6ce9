package hook

import (
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/cgroup"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/images"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/remover"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// prepare works when the restored container's control group is known and its
// processes do not exist yet but for the first. systemd watches cgroup.events of
// every unit's group; CRIU recreates those that hold processes, and a restore fails
// where a watched file is absent ("fsnotify: Unable to open"). An active mount unit
// and a slice hold none. So the groups that the images say are watched are
// created, within the container's own group.
//
// Version 1 needs none of this: there systemd does not watch its groups
// (unit_watch_cgroup, src/core/cgroup.c, returns for a hierarchy that is not unified).
func (r Runner) prepare(e Event) error {
	if has, err := hasAutofs(e.ImageDir); err != nil || !has {
		return err
	}
	init, err := nsenter.Open(e.PID)
	if err != nil {
		return err
	}
	defer init.Close()
	criu, err := nsenter.Open(e.CRIU)
	if err != nil {
		return fmt.Errorf("the restoring process: %w", err)
	}
	defer criu.Close()
	inside, err := hasOwnGroups(init)
	if err != nil {
		return err
	}
	view := hostView
	if inside {
		view = ownView
	}
	return r.createGroups(init, criu, e.ImageDir, view)
}

// hasOwnGroups reports whether a process is in another cgroup namespace than this one.
func hasOwnGroups(p *nsenter.Process) (bool, error) {
	its, err := p.Namespace("cgroup")
	if err != nil {
		return false, err
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/cgroup", &st); err != nil {
		return false, &os.PathError{Op: "stat", Path: "/proc/self/ns/cgroup", Err: err}
	}
	return its != nsenter.NamespaceID{Device: st.Dev, Inode: st.Ino}, nil
}

// createGroups creates the watched groups in the container's own.
func (r Runner) createGroups(init, criu *nsenter.Process, dir string, view groupView) error {
	watched, err := readWatches(dir)
	if err != nil || len(watched.Groups) == 0 {
		return err
	}
	own, err := cgroup.Own(init)
	if err != nil {
		return err
	}
	wanted, refused := watchedGroups(watched, own, view)
	if err := refused.err(own); err != nil {
		r.Warn(err)
	}
	if len(wanted) == 0 {
		return nil
	}
	engine := modelOf(criu)
	if engine != nil {
		defer engine.Close()
	}
	if err := cgroup.CheckOwn(own, engine); err != nil {
		return err
	}
	group, err := cgroup.OpenGroup(own)
	if err != nil {
		return err
	}
	defer group.Close()
	created, err := cgroup.Create(group, wanted)
	if len(created) > 0 {
		if err := remover.Start(criu, init, engine, group, created); err != nil {
			r.Warn(err)
		}
		r.note(fmt.Sprintf("%d control groups created in %q that systemd watches and CRIU does not recreate: %s",
			len(created), own, brief(fmt.Sprintf("%q", created[:min(len(created), maxPaths)]))))
	}
	return err
}

func readWatches(dir string) (*images.Watched, error) {
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		defer f.Close()
		var watched *images.Watched
		if watched, err = images.ReadWatches(f); err == nil {
			return watched, nil
		}
	}
	return nil, fmt.Errorf("checkpoint images: %w", err)
}

// groupView is what a container sees of the control groups.
type groupView int

const (
	// ownView shows its own group at the top: it has a cgroup namespace.
	ownView groupView = iota
	// hostView shows the same as the host: it has none.
	hostView
	// anyView means that it cannot be known yet.
	anyView
)

// refusals are the watches for which no group is created.
type refusals struct {
	outside  string // a group outside of the container's own
	unusable string // a path that is none of a group
	count    int
	tooMany  bool
}

func (r refusals) err(own string) error {
	switch {
	case r.tooMany:
		return fmt.Errorf("more than %d control groups are watched: the others are not created", cgroup.MaxGroups)
	case r.outside != "":
		return fmt.Errorf("the checkpoint watches the control group %q, which is not within the container's own %q, and %d more: "+
			"a container without a cgroup namespace can be restored only where its control group has the same path, "+
			"and no other if CRIU is told to ignore control groups", cut(r.outside, maxShort), own, r.count-1)
	case r.unusable != "":
		return fmt.Errorf("the checkpoint watches %q, which names no control group that could be created, and %d more", cut(r.unusable, maxShort), r.count-1)
	}
	return nil
}

// watchedGroups lists the groups, relative to the container's own, whose files the
// checkpointed processes watch.
func watchedGroups(w *images.Watched, own string, view groupView) (wanted []string, refused refusals) {
	seen := make(map[string]bool)
	for _, watch := range w.Watches {
		mount, ok := w.Groups[watch.MountID]
		if !ok || watch.Path == "" {
			continue
		}
		seenFrom, ok := beneath(watch.Path, mount.MountPoint)
		if !ok {
			continue // the mount shows it, under another name
		}
		rel, ok := ownGroup(path.Join(mount.Root, groupOf(seenFrom)), own, view)
		switch {
		case !ok:
			refused.count++
			refused.outside = watch.Path
			continue
		case rel == "" || seen[rel]:
			continue
		case checkGroup(rel) != nil:
			refused.count++
			refused.unusable = watch.Path
			continue
		case len(seen) >= cgroup.MaxGroups:
			refused.tooMany = true
			return wanted, refused
		}
		seen[rel] = true
		wanted = append(wanted, rel)
	}
	return wanted, refused
}

// groupOf leaves out the name of the kernel's file in a group. Watches are mostly on
// those; one on a group itself has no such name.
func groupOf(file string) string {
	if cgroup.IsInterfaceFile(path.Base(file)) {
		return path.Dir(file)
	}
	return file
}

// ownGroup is a group relative to the container's own; "" is that one itself.
func ownGroup(group, own string, view groupView) (string, bool) {
	rel, within := beneath(group, own)
	if view == hostView || view == anyView && within {
		return rel, within
	}
	return strings.TrimPrefix(group, "/"), true
}

// beneath is a clean path relative to another one.
func beneath(file, dir string) (string, bool) {
	if path.Clean(file) != file || !path.IsAbs(file) {
		return "", false
	}
	if file == dir {
		return "", true
	}
	rel, ok := strings.CutPrefix(file, strings.TrimSuffix(dir, "/")+"/")
	return rel, ok
}

func checkGroup(rel string) error {
	names := strings.Split(rel, "/")
	if len(names) > cgroup.MaxDepth {
		return fmt.Errorf("%d groups deep, at most %d are created", len(names), cgroup.MaxDepth)
	}
	for _, name := range names {
		if err := cgroup.CheckName(name); err != nil {
			return err
		}
	}
	return nil
}
