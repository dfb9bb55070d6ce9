package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

const runtimeName = "io.containerd.runc.v2"

// mounts counts a container's autofs mounts, in all of its mount namespaces. How
// many of them show automount's depends on which service started first.
type mounts struct{ systemd, direct, indirect float64 }

func (m mounts) all() float64 { return m.systemd + m.direct + m.indirect }

// countMounts looks at the processes of the container's cgroups.
func (c *container) countMounts(t *testing.T) {
	t.Helper()
	seen := map[string]bool{}
	for _, dir := range c.Cgroups(t) {
		text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			t.Fatal(err)
		}
		for field := range strings.FieldsSeq(string(text)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			namespace, err := os.Readlink("/proc/" + field + "/ns/mnt")
			if err != nil || seen[namespace] {
				continue
			}
			seen[namespace] = true
			for path := range lab.Autofs(t, pid) {
				switch path {
				case lab.Indirect:
					c.mounts.indirect++
				case lab.Direct, lab.Direct2:
					c.mounts.direct++
				default:
					c.mounts.systemd++
				}
			}
		}
	}
}

// labels are those that the kubelet gives to a pod's container.
var labels = map[string]string{
	"io.kubernetes.pod.namespace": "default", "io.kubernetes.pod.name": "legacy-0",
	"io.kubernetes.pod.uid": "5f1c2d0e-0000-4000-8000-000000000001", "io.kubernetes.container.name": "legacy",
}

// container is a systemd container of containerd.
type container struct {
	*lab.Container
	containerd client.Container
	task       client.Task
	images     string
	groups     []string
	mounts     mounts
	units      map[string]lab.Unit // before the checkpoint
	daemons    []int               // of automount, before the checkpoint
	highest    uint32              // device number (minor) of an autofs mount before the checkpoint
}

// start starts a systemd container with automounts of every kind.
func start(t *testing.T, d *daemon, o lab.Options) *container {
	t.Helper()
	prepared, spec := lab.Prepare(t, o)
	c := &container{Container: prepared, images: filepath.Join(prepared.Bundle, "images")}
	var err error
	c.containerd, err = d.client.NewContainer(kubelet, c.ID, client.WithSpec(spec),
		client.WithRuntime(runtimeName, &options.Options{}), client.WithContainerLabels(labels))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.end(t)
		if err := c.containerd.Delete(kubelet); err != nil {
			t.Error(err)
		}
	})
	if c.task, err = c.containerd.NewTask(kubelet, cio.NullIO); err != nil {
		t.Fatal(err)
	}
	if err := c.task.Start(kubelet); err != nil {
		t.Fatal(err)
	}
	c.Started(t, int(c.task.Pid()), o.Plain) // only systemd boots
	return c
}

// checkpoint dumps the container into files and ends it.
func (c *container) checkpoint(t *testing.T) {
	t.Helper()
	c.groups = c.Cgroups(t)
	c.note(t)
	if err := os.MkdirAll(c.images, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := c.task.Checkpoint(kubelet, func(i *client.CheckpointTaskInfo) error {
		i.Options = &options.CheckpointOptions{
			Exit: true, OpenTcp: true, FileLocks: true, ImagePath: c.images, WorkPath: c.Bundle,
		}
		return nil
	})
	if err != nil {
		t.Fatalf("checkpoint: %v", err)
	}
	c.end(t)
	c.FreeNumbers()
}

// note keeps the units and the daemons as they are.
func (c *container) note(t *testing.T) {
	t.Helper()
	if c.units = nil; len(c.Daemons(t)) > 0 {
		c.units, c.daemons = c.Settle(t), c.inside(t)
	}
}

// inside are the daemons' numbers in the container.
func (c *container) inside(t *testing.T) []int {
	t.Helper()
	var pids []int
	for _, pid := range c.Daemons(t) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if numbers, ok := strings.CutPrefix(line, "NSpid:"); ok {
				fields := strings.Fields(numbers)
				inner, err := strconv.Atoi(fields[len(fields)-1])
				if err != nil {
					t.Fatal(err)
				}
				pids = append(pids, inner)
			}
		}
	}
	return pids
}

// checkIdentical wants every unit's state, main process and InvocationID, and each
// daemon, as they were at the checkpoint. Nothing may have been accessed since: an
// access starts a mount unit.
func (c *container) checkIdentical(t *testing.T) {
	t.Helper()
	after := c.Settle(t)
	for _, change := range lab.UnitChanges(c.units, after) {
		t.Errorf("%s", change)
	}
	if now := c.inside(t); !slices.Equal(now, c.daemons) {
		t.Errorf("automount: processes %v, before the checkpoint %v", now, c.daemons)
	}
	t.Logf("%d units and %d daemons are as before the checkpoint", len(after), len(c.daemons))
}

// end ends the container, if it runs, with all that containerd and CRIU made
// for it.
func (c *container) end(t *testing.T) {
	t.Helper()
	if c.task != nil {
		if err := deleteTask(c.task); err != nil {
			t.Errorf("container %s: %v", c.ID, err)
		}
		c.task = nil
	}
	for _, dir := range slices.Backward(c.Cgroups(t)) {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	}
}

// deleteTask kills and deletes a task.
func deleteTask(task client.Task) error {
	exited, err := task.Wait(kubelet)
	if err != nil {
		return err
	}
	_ = task.Kill(kubelet, syscall.SIGKILL, client.WithKillAll) // it may have ended
	select {
	case <-exited:
	case <-time.After(10 * time.Second):
		return fmt.Errorf("not ended within 10 s")
	}
	_, err = task.Delete(kubelet)
	return err
}

// restore restores the container and returns when containerd says that it runs.
func (c *container) restore(t *testing.T) time.Time {
	t.Helper()
	if err := c.tryRestore(t); err != nil {
		t.Fatal(err)
	}
	return time.Now()
}

func (c *container) tryRestore(t *testing.T) error {
	t.Helper()
	var err error
	c.task, err = c.containerd.NewTask(kubelet, cio.NullIO, client.WithRestoreImagePath(c.images), client.WithRestoreWorkPath(c.Bundle))
	if err != nil {
		return err
	}
	if err := c.task.Start(kubelet); err != nil {
		log, _ := os.ReadFile(filepath.Join(c.Bundle, "restore.log"))
		return fmt.Errorf("restore: %w\n%s", err, log[max(0, len(log)-3000):])
	}
	c.Started(t, int(c.task.Pid()), true)
	return nil
}
