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
// mount, that of the key. automount mounts offset triggers only together with the key
// (daemon/direct.c, mount_autofs_offset). So a key without users is detached, as its
// expiry would do: the next access mounts it with new triggers.

// key is the mount of a key with offset triggers.
type key struct {
	mount   *mounts.Mount
	offsets []*mounts.Mount
	users   []string // processes that use files in it, for errors
}

// keysOf returns the keys of the given offset triggers in a mount table.
func keysOf(t *mounts.Table, triggers []*container.Mount) []*key {
	var keys []*key
	for _, m := range triggers {
		offset := t.ByID(m.ID)
		top := offset
		for top != nil { // up to the mount on the indirect map
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

// detachUnusedKeys detaches the keys of a daemon's stale offset triggers, except those in
// use by a process of the container. The result has an entry for each trigger, by path:
// the reason why it is not detached, nil if it is.
//
// A key is detached in one step, so that no path leads into a key without its triggers.
// An unmount without MNT_DETACH would fail (EBUSY) while CRIU has files open there, and
// while a trigger has a waiter, which refers to the parent mount.
func (s *Session) detachUnusedKeys(ctx context.Context, daemon *owner.Member, triggers []*container.Mount) map[string]error {
	home := s.spaceOf(daemon)
	result := map[string]error{}
	keys := keysOf(home.Table, triggers)
	usersErr := s.findUsers(ctx, keys)
	for _, k := range keys {
		var err error
		switch other := foreignMount(home.Table, k); {
		case other != nil:
			err = fmt.Errorf("%q: the mount %q in it is not automount's: unmount that, then repair again", k.mount.Mountpoint, other.Mountpoint)
		case len(k.users) > 0:
			err = fmt.Errorf("%q is in use by %s: repair again when it is not in use", k.mount.Mountpoint, nameUsers(k.users))
		case usersErr != nil:
			err = fmt.Errorf("%q: search for its users: %w; repair again", k.mount.Mountpoint, usersErr)
		default:
			err = home.Process.InMountNamespace(context.WithoutCancel(ctx), func(*nsenter.Thread) error { return mounts.DetachTree(k.mount) })
		}
		for _, m := range k.offsets {
			result[m.Mountpoint] = err
		}
	}
	for _, m := range triggers {
		if _, found := result[m.Path]; !found {
			result[m.Path] = errors.New("it is not below a key of an indirect map: restart automount")
		}
	}
	return result
}

// foreignMount returns a mount in a key that is not the daemon's and would be lost; nil if
// there is none. The daemon's mounts are offset triggers with the same pipe, and mounts
// on the root of such a trigger.
func foreignMount(t *mounts.Table, k *key) *mounts.Mount {
	pipes := map[uint64]bool{}
	for _, offset := range k.offsets {
		if options, err := autofs.ParseOptions(offset.VFSOptions); err == nil {
			pipes[options.PipeInode] = true
		}
	}
	isTrigger := func(m *mounts.Mount) bool {
		if m == nil || m.FSType != "autofs" {
			return false
		}
		options, err := autofs.ParseOptions(m.VFSOptions)
		return err == nil && options.Type == autofs.Offset && pipes[options.PipeInode]
	}
	for _, m := range t.Descendants(k.mount) {
		parent := t.ByID(m.Parent)
		if onTrigger := isTrigger(parent) && parent.Mountpoint == m.Mountpoint; !onTrigger && !isTrigger(m) {
			return m
		}
	}
	return nil
}

// usersTime is the time limit of findUsers: a container can have any number of files open
// and mapped.
const usersTime = time.Second

// findUsers sets the users of keys, in every mount namespace of the container. After an
// error the users are incomplete.
func (s *Session) findUsers(ctx context.Context, keys []*key) error {
	ctx, cancel := context.WithTimeout(ctx, usersTime)
	defer cancel()
	keysByMount := map[int][]*key{} // by mount id
	for _, sp := range s.container.MountSpaces() {
		for _, k := range keys {
			m := sp.Table.Find(k.mount.Mountpoint, mounts.DeviceOf(k.mount))
			if m == nil {
				continue
			}
			for _, each := range append(sp.Table.Descendants(m), m) {
				keysByMount[each.ID] = append(keysByMount[each.ID], k)
			}
		}
	}
	if len(keysByMount) == 0 {
		return nil
	}
	for _, pid := range s.container.Members {
		p, err := nsenter.Open(pid)
		if err != nil {
			continue // it has ended
		}
		used := map[*key]bool{}
		err = eachMountUsed(ctx, p, func(id int) {
			for _, k := range keysByMount[id] {
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

// maxUsers is the number of processes that an error names.
const maxUsers = 5

func nameUsers(names []string) string {
	if len(names) > maxUsers {
		names = append(names[:maxUsers:maxUsers], strconv.Itoa(len(names)-maxUsers)+" more")
	}
	return strings.Join(names, ", ")
}

// eachMountUsed calls found with the id of each mount that a process uses by its working
// directory, root, program, mapped files or descriptors. The error is that of ctx.
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
