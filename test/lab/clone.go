package lab

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// inOwnGroup runs a command with a control group, whose name is the first argument, as the
// root of all that it sees. The command is in a group below: with processes in it the root
// could have no controllers.
const inOwnGroup = `mkdir -p "/sys/fs/cgroup/$1" && echo $$ >"/sys/fs/cgroup/$1/cgroup.procs" && shift &&
exec unshare --cgroup --mount --propagation private sh -c '
mount -t cgroup2 cgroup2 /sys/fs/cgroup && mkdir -p /sys/fs/cgroup/runtime &&
echo $$ >/sys/fs/cgroup/runtime/cgroup.procs && exec "$@"' restore "$@"`

// cloneLimit is the time limit of a restore among a hundred.
const cloneLimit = 100 * time.Second

// Clone returns the checkpoint with another name and bundle, to be restored beside other
// containers as users do it: unlike those of [Checkpoint.Clones], into the control group
// that the runtime takes. Only for runc and crun.
func (cp *Checkpoint) Clone(t testing.TB) *Checkpoint {
	t.Helper()
	clone := cp.rename(t)
	clone.container.groups = []string{clone.container.ID} // not that of the original, which runs
	return clone
}

// Clones returns the checkpoint under other names of containers, to be restored at the
// same time. They share its images and its root folder. runc 1.1 restores a container into
// the control group of the checkpoint, whatever its name is, so each runtime runs in a
// control group of its own. Only for runc and crun.
func (cp *Checkpoint) Clones(t testing.TB, count int) []*Checkpoint {
	t.Helper()
	var clones []*Checkpoint
	for range count {
		clone := cp.rename(t)
		clone.container.ownGroup = true
		clones = append(clones, clone)
	}
	return clones
}

// rename returns a copy of the checkpoint with another name and bundle.
func (cp *Checkpoint) rename(t testing.TB) *Checkpoint {
	t.Helper()
	config, err := os.ReadFile(filepath.Join(cp.container.Bundle, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	renamed := *cp
	c, id := &renamed.container, newID()
	c.Bundle, c.leave = Scratch(t, id), false
	if err := os.WriteFile(filepath.Join(c.Bundle, "config.json"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.rename(RestoreOptions{ID: id}); err != nil {
		t.Fatal(err)
	}
	return &renamed
}

// RestoreAll restores checkpoints at the same time. It returns the containers that were
// restored, and joins the errors of the others.
func RestoreAll(t testing.TB, list []*Checkpoint) ([]*Restored, error) {
	t.Helper()
	restored, errs := make([]*Restored, len(list)), make([]error, len(list))
	var all sync.WaitGroup
	for i, cp := range list {
		all.Go(func() { restored[i], errs[i] = cp.TryRestore(t, RestoreOptions{}) })
	}
	all.Wait()
	return slices.DeleteFunc(restored, func(r *Restored) bool { return r == nil }), errors.Join(errs...)
}

// KillAll ends containers, all at the same time.
func KillAll(t testing.TB, list []*Restored) {
	t.Helper()
	for _, r := range list {
		_ = syscall.Kill(r.PID, syscall.SIGKILL)
	}
	for _, r := range list {
		r.Kill(t)
	}
}
