package hook

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
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
}

// keysOf finds the keys of the given offset triggers in a namespace.
func keysOf(t *mounts.Table, triggers []*Mount) []*key {
	var keys []*key
	for _, m := range triggers {
		offset := t.ByID(m.ID)
		top := offset
		for top != nil { // up to what is mounted on the indirect map
			parent := t.ByID(top.Parent)
			if parent != nil && parent.FSType == "autofs" && indirect(parent) {
				break
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

func indirect(m *mounts.Mount) bool {
	options, err := autofs.ParseOptions(m.VFSOptions)
	return err == nil && options.Type == autofs.Indirect
}

// detachKeys detaches the keys of a daemon's stale offset triggers where no process
// of the container uses them. It returns an error for each trigger, by path, that
// is left.
//
// It is one step, so that no path leads into a key without its triggers. An unmount
// would not do: it fails (EBUSY) while CRIU runs, which has files open there, and
// while a process waits on a trigger, which holds the mount that it comes from.
func (s *scene) detachKeys(ctx context.Context, daemon *owner.Member, triggers []*Mount) map[string]error {
	home := s.home(daemon)
	failed := map[string]error{}
	for _, k := range keysOf(home.table, triggers) {
		var err error
		if users := s.usersOf(home.table, k); len(users) > 0 {
			err = fmt.Errorf("%q is in use by %s: repair again when it is not", k.mount.Mountpoint, strings.Join(users, ", "))
		} else {
			err = home.process.InMountNamespace(context.WithoutCancel(ctx), func(*nsenter.Thread) error { return mounts.DetachTree(k.mount) })
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

// maxUsers bounds how many processes are named.
const maxUsers = 5

// usersOf names the processes that use files in a key.
func (s *scene) usersOf(t *mounts.Table, k *key) []string {
	ids := map[int]bool{k.mount.ID: true}
	for _, m := range t.On(k.mount) {
		ids[m.ID] = true
	}
	var names []string
	for _, pid := range s.members {
		p, err := nsenter.Open(pid)
		if err != nil {
			continue
		}
		if uses(p, ids) {
			comm, _ := p.ReadFile("comm", 1<<10)
			names = append(names, fmt.Sprintf("process %d (%q)", pid, strings.TrimSuffix(string(comm), "\n")))
		}
		p.Close()
	}
	if len(names) > maxUsers {
		names = append(names[:maxUsers], strconv.Itoa(len(names)-maxUsers)+" more")
	}
	return names
}

func uses(p *nsenter.Process, ids map[int]bool) bool {
	links := []string{"cwd", "root", "exe"}
	mapped, _ := p.ReadDirNames("map_files")
	for _, name := range mapped {
		links = append(links, "map_files/"+name)
	}
	for _, link := range links {
		f, err := p.OpenPath(link)
		if err != nil {
			continue
		}
		id, err := mounts.MountID(f)
		f.Close()
		if err == nil && ids[id] {
			return true
		}
	}
	for id := range ids {
		if holdsMount(p, id) {
			return true
		}
	}
	return false
}
