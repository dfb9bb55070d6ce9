package cure

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/owner"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// An entry of an indirect map with several mounts has offset triggers in its first
// mount, the key. automount mounts them together with the key, and never again
// alone (daemon/direct.c, mount_autofs_offset). So a key that no process uses is
// detached, as its expiry would do: the next access mounts it with new triggers.

// key is a mounted key with offset triggers.
type key struct {
	mount   *mounts.Mount
	offsets []*mounts.Mount
	users   []string // processes that use files in it
}

// keysOf finds the keys of the given offset triggers in a namespace.
func keysOf(t *mounts.Table, triggers []*container.Mount) []*key {
	var keys []*key
	for _, m := range triggers {
		offset := t.ByID(m.ID)
		top := offset
		for top != nil { // up to what is mounted on the indirect map
			parent := t.ByID(top.Parent)
			if parent != nil && parent.FSType == "autofs" && isIndirect(parent) {
				break
			}
			if parent == top { // the root of a namespace
				parent = nil
			}
			top = parent
		}
		if top == nil || top == offset {
			continue
		}
		i := slices.IndexFunc(keys, func(k *key) bool { return k.mount == top })
		if i < 0 {
			i = len(keys)
			keys = append(keys, &key{mount: top})
		}
		keys[i].offsets = append(keys[i].offsets, offset)
	}
	return keys
}

func isIndirect(m *mounts.Mount) bool {
	options, err := autofs.ParseOptions(m.VFSOptions)
	return err == nil && options.Type == autofs.Indirect
}

// detachUnusedKeys detaches the keys of a daemon's stale offset triggers where no process
// of the container uses them. It returns an error for each trigger, by path, that
// is left.
//
// It is one step, so that no path leads into a key without its triggers. An unmount
// would not do: it fails (EBUSY) while CRIU runs, which has files open there, and
// while a process waits on a trigger, which holds the mount that it comes from.
func (s *Session) detachUnusedKeys(ctx context.Context, daemon *owner.Member, triggers []*container.Mount) map[string]error {
	home := s.spaceOf(daemon)
	failed := map[string]error{}
	keys := keysOf(home.Table, triggers)
	usersErr := s.findUsers(ctx, keys)
	for _, k := range keys {
		var err error
		switch other := foreignMount(home.Table, k); {
		case other != nil:
			err = fmt.Errorf("%q: automount has not mounted %q in it: unmount that, then repair again", k.mount.Mountpoint, other.Mountpoint)
		case len(k.users) > 0:
			err = fmt.Errorf("%q is in use by %s: repair again when it is not", k.mount.Mountpoint, nameUsers(k.users))
		case usersErr != nil:
			err = fmt.Errorf("%q: whether it is in use: %w", k.mount.Mountpoint, usersErr)
		default:
			err = home.Process.InMountNamespace(context.WithoutCancel(ctx), func(*nsenter.Thread) error { return mounts.DetachTree(k.mount) })
		}
		for _, m := range k.offsets {
			failed[m.Mountpoint] = err
		}
	}
	for _, m := range triggers {
		if _, found := failed[m.Path]; !found {
			failed[m.Path] = errors.New("it is not below a key of an indirect map")
		}
	}
	return failed
}

// foreignMount returns a mount in a key that the daemon has not made: it would be lost. The
// daemon's are offset triggers with the same pipe, and what lies exactly on one.
func foreignMount(t *mounts.Table, k *key) *mounts.Mount {
	pipe := map[uint64]bool{}
	for _, offset := range k.offsets {
		if options, err := autofs.ParseOptions(offset.VFSOptions); err == nil {
			pipe[options.PipeInode] = true
		}
	}
	trigger := func(m *mounts.Mount) bool {
		if m == nil || m.FSType != "autofs" {
			return false
		}
		options, err := autofs.ParseOptions(m.VFSOptions)
		return err == nil && options.Type == autofs.Offset && pipe[options.PipeInode]
	}
	for _, m := range t.On(k.mount) {
		parent := t.ByID(m.Parent)
		if onTrigger := trigger(parent) && parent.Mountpoint == m.Mountpoint; !onTrigger && !trigger(m) {
			return m
		}
	}
	return nil
}

// usersTime bounds the look at what processes use: a container can have as many
// files open, and mapped, as it likes.
const usersTime = time.Second

// findUsers fills in the users of keys, in every mount namespace of the container. An
// error means that it did not look at all processes.
func (s *Session) findUsers(ctx context.Context, keys []*key) error {
	ctx, cancel := context.WithTimeout(ctx, usersTime)
	defer cancel()
	owners := map[int][]*key{} // by mount id
	for _, sp := range s.container.MountSpaces() {
		for _, k := range keys {
			m := sp.Table.Find(k.mount.Mountpoint, mounts.DeviceOf(k.mount))
			if m == nil {
				continue
			}
			for _, each := range append(sp.Table.On(m), m) {
				owners[each.ID] = append(owners[each.ID], k)
			}
		}
	}
	if len(owners) == 0 {
		return nil
	}
	for _, pid := range s.container.Members {
		p, err := nsenter.Open(pid)
		if err != nil {
			continue // ended meanwhile
		}
		used := map[*key]bool{}
		err = eachMountUsed(ctx, p, func(id int) {
			for _, k := range owners[id] {
				used[k] = true
			}
		})
		comm, _ := p.ReadFile("comm", 1<<10)
		p.Close()
		for k := range used {
			k.users = append(k.users, fmt.Sprintf("process %d (%q)", pid, strings.TrimSuffix(string(comm), "\n")))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// maxUsers bounds how many processes are named.
const maxUsers = 5

func nameUsers(names []string) string {
	if len(names) > maxUsers {
		names = append(names[:maxUsers:maxUsers], strconv.Itoa(len(names)-maxUsers)+" more")
	}
	return strings.Join(names, ", ")
}

// eachMountUsed calls found with the id of each mount that a process uses: by its working
// directory, root, program, mapped files and descriptors.
func eachMountUsed(ctx context.Context, p *nsenter.Process, found func(id int)) error {
	links := []string{"cwd", "root", "exe"}
	mapped, _ := p.ReadDirNames("map_files")
	for _, name := range mapped {
		links = append(links, "map_files/"+name)
	}
	for _, link := range links {
		if err := ctx.Err(); err != nil {
			return err
		}
		f, err := p.OpenPath(link)
		if err != nil {
			continue
		}
		if id, err := mounts.MountID(f); err == nil {
			found(id)
		}
		f.Close()
	}
	descriptors, _ := p.ReadDirNames("fdinfo")
	for _, name := range descriptors {
		if err := ctx.Err(); err != nil {
			return err
		}
		if id, err := container.MountOfDescriptor(p, name); err == nil {
			found(id)
		}
	}
	return nil
}
