package cure

import (
	"fmt"
	"path"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/cgroup"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/criuimage"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/helper/remover"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// GroupView is what a container sees of the control groups.
type GroupView int

const (
	// OwnView shows its own group at the top: it has a cgroup namespace.
	OwnView GroupView = iota
	// HostView shows the same as the host: it has none.
	HostView
	// AnyView means that it cannot be known yet.
	AnyView
)

// CreateGroups creates the groups in the container's own, named own, that the
// checkpointed processes watch, and starts the helper that removes those that a failed
// restore leaves. criu is the process that restores.
func CreateGroups(init, criu *nsenter.Process, watched *criuimage.Watched, view GroupView, warn func(error)) (own string, created []string, err error) {
	if len(watched.Groups) == 0 {
		return "", nil, nil
	}
	if own, err = cgroup.Own(init); err != nil {
		return "", nil, err
	}
	wanted, refused := watchedGroups(watched, own, view)
	if err := refused.err(own); err != nil {
		warn(err)
	}
	if len(wanted) == 0 {
		return own, nil, nil
	}
	engine := container.OpenEngine(criu)
	if engine != nil {
		defer engine.Close()
	}
	if err := cgroup.CheckOwn(own, engine); err != nil {
		return own, nil, err
	}
	group, err := cgroup.OpenGroup(own)
	if err != nil {
		return own, nil, err
	}
	defer group.Close()
	created, err = cgroup.Create(group, wanted)
	if len(created) > 0 {
		if err := remover.Start(criu, init, engine, group, created); err != nil {
			warn(err)
		}
	}
	return own, created, err
}

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
			"and no other if CRIU is told to ignore control groups", report.TruncateTo(r.outside, report.MaxShort), own, r.count-1)
	case r.unusable != "":
		return fmt.Errorf("the checkpoint watches %q, which names no control group that could be created, and %d more", report.TruncateTo(r.unusable, report.MaxShort), r.count-1)
	}
	return nil
}

// watchedGroups lists the groups, relative to the container's own, whose files the
// checkpointed processes watch.
func watchedGroups(w *criuimage.Watched, own string, view GroupView) (wanted []string, refused refusals) {
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
func ownGroup(group, own string, view GroupView) (string, bool) {
	rel, within := beneath(group, own)
	if view == HostView || view == AnyView && within {
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
