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

// GroupView is the part of the control group hierarchy that a container sees.
type GroupView int

const (
	// OwnView has the container's own group as its root: it has a cgroup namespace.
	OwnView GroupView = iota
	// HostView has the host's root group as its root: it has no cgroup namespace.
	HostView
	// AnyView means that the view is not known yet.
	AnyView
)

// CreateGroups creates the groups that the checkpointed processes watch, within the
// container's own group, and starts the helper that removes them if the restore fails.
// criu is the restoring process. It returns the path of the container's own group and
// the names of the created groups, also with an error.
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

// refusals describes the watches for which no group is created.
type refusals struct {
	outside  string // example of a group outside the container's own
	unusable string // example of a path that is not a valid group
	count    int
	tooMany  bool
}

// err returns the refusals as one error, nil if there are none.
func (r refusals) err(own string) error {
	switch {
	case r.tooMany:
		return fmt.Errorf("the checkpoint watches more than %d control groups: the others are not created, and the restore will fail", cgroup.MaxGroups)
	case r.outside != "":
		return fmt.Errorf("the checkpoint watches the control group %q, which is not within the container's own %q, and %d more: "+
			"a container without a cgroup namespace can be restored only where its control group has the same path, "+
			"and no other if CRIU is configured to ignore control groups", report.TruncateTo(r.outside, report.MaxShort), own, r.count-1)
	case r.unusable != "":
		return fmt.Errorf("the checkpoint watches %q, which names no control group that can be created, and %d more", report.TruncateTo(r.unusable, report.MaxShort), r.count-1)
	}
	return nil
}

// watchedGroups returns the groups that the checkpointed processes watch, relative to the
// container's own group.
func watchedGroups(w *criuimage.Watched, own string, view GroupView) (wanted []string, refused refusals) {
	seen := make(map[string]bool) // with their parents, which are created, too
	for _, watch := range w.Watches {
		mount, ok := w.Groups[watch.MountID]
		if !ok || watch.Path == "" {
			continue
		}
		file, ok := beneath(watch.Path, mount.MountPoint)
		if !ok {
			continue // another path of the same mount
		}
		rel, ok := ownGroup(path.Join(mount.Root, groupOf(file)), own, view)
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
		}
		for p := rel; p != "." && !seen[p]; p = path.Dir(p) {
			seen[p] = true
		}
		if len(seen) > cgroup.MaxGroups {
			refused.tooMany = true
			return wanted, refused
		}
		wanted = append(wanted, rel)
	}
	return wanted, refused
}

// groupOf returns the group of a watched path, which is mostly a file of the kernel in the
// group, or else the group itself.
func groupOf(file string) string {
	if cgroup.IsInterfaceFile(path.Base(file)) {
		return path.Dir(file)
	}
	return file
}

// ownGroup returns the path of a group relative to the container's own group, "" for that
// group itself. ok is false if it is outside.
func ownGroup(group, own string, view GroupView) (rel string, ok bool) {
	rel, ok = beneath(group, own)
	if view == HostView || view == AnyView && ok {
		return rel, ok
	}
	return strings.TrimPrefix(group, "/"), true
}

// beneath returns an absolute clean path relative to dir. ok is false if it is outside.
func beneath(file, dir string) (rel string, ok bool) {
	if path.Clean(file) != file || !path.IsAbs(file) {
		return "", false
	}
	if file == dir {
		return "", true
	}
	return strings.CutPrefix(file, strings.TrimSuffix(dir, "/")+"/")
}

// checkGroup returns an error if no group with this relative path may be created.
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
