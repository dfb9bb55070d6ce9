package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Checkpoint is a container in files. It can be restored many times, one after
// the other.
type Checkpoint struct {
	Images string // folder with CRIU's images
	Took   time.Duration

	container Container
	cgroups   []string
}

// Checkpoint dumps and ends the container, and frees the device numbers that [Start]
// took, so that a restore gives every file system another one.
func (c *Container) Checkpoint(t testing.TB) *Checkpoint {
	t.Helper()
	for deadline := time.Now().Add(bootLimit); ; time.Sleep(100 * time.Millisecond) {
		cp, err := c.TryCheckpoint(t)
		if err == nil {
			return cp
		}
		passing := slices.ContainsFunc(passingRefusals, func(text string) bool { return strings.Contains(err.Error(), text) })
		if !passing || time.Now().After(deadline) {
			t.Fatal(err)
		}
		t.Logf("again: %v", err)
	}
}

// passingRefusals are errors of CRIU about a state of systemd that lasts for a moment: it
// has an automount open to expire it, or watches a control group that is being removed.
var passingRefusals = []string{"Open files on overmounted mounts", "Can't dump that handle", "error parsing [inotify "}

// TryCheckpoint is Checkpoint for a container that CRIU may refuse to dump. It keeps
// running then.
func (c *Container) TryCheckpoint(t testing.TB) (*Checkpoint, error) {
	t.Helper()
	cp := &Checkpoint{}
	var err error
	if cp.cgroups, err = listCgroups(c.groups); err != nil {
		t.Fatal(err)
	}
	// A separate folder: a restored container can be checkpointed again.
	if cp.Images, err = os.MkdirTemp(c.Bundle, "images"); err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	if err := c.engine.checkpoint(c, cp.Images); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, errorLines(c.log("dump.log")))
	}
	cp.Took = time.Since(started)
	cp.container = *c
	if !c.leave {
		c.Kill(t)
	}
	return cp, nil
}

// CheckpointRunning is Checkpoint, but the container goes on running. It keeps its device
// numbers.
func (c *Container) CheckpointRunning(t testing.TB) *Checkpoint {
	t.Helper()
	c.leave = true
	defer func() { c.leave = false }()
	return c.Checkpoint(t)
}

// ContainerID returns the name of the container, which is also that of its control group.
func (cp *Checkpoint) ContainerID() string { return cp.container.ID }

// Root returns the root folder of the container, which all restored containers share.
func (cp *Checkpoint) Root() string { return filepath.Join(cp.container.Bundle, "rootfs") }

// RestoreOptions are the options of a restore.
type RestoreOptions struct {
	// Before is called right before the runtime.
	Before func()
	// Images replaces the checkpoint's own folder of images.
	Images string
	// ID is another name for the container, if not empty; its control group has
	// that name too. Only for runc and crun.
	ID string
	// CgroupsPath is another control group than the one named like the container.
	CgroupsPath string
	// Script is a program that becomes CRIU's action script by the engine's own means:
	// /etc/criu/runc.conf or crun.conf, or an option of criu or lxc-checkpoint.
	// [InstallActionScript] works with all engines.
	Script string
}

// Restored is a restored container.
type Restored struct {
	*Container
	Took time.Duration
	Log  string // CRIU's log, with the output of the action script
}

// Restore restores the container; it ends with the test.
func (cp *Checkpoint) Restore(t testing.TB, options RestoreOptions) *Restored {
	t.Helper()
	r, err := cp.TryRestore(t, options)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TryRestore is Restore for a restore that may fail.
func (cp *Checkpoint) TryRestore(t testing.TB, options RestoreOptions) (*Restored, error) {
	t.Helper()
	lockNumbers(t)
	c := cp.container
	t.Cleanup(func() { c.Kill(t) })
	if err := c.rename(options); err != nil {
		t.Fatal(err)
	}
	c.script = options.Script
	images := cp.Images
	if options.Images != "" {
		images = options.Images
	}
	_ = os.Remove(c.pidFile())
	log := c.log("restore.log")
	_ = os.Remove(log)
	if options.Before != nil {
		options.Before()
	}
	started := time.Now()
	err := c.engine.restore(&c, images)
	took := time.Since(started)
	text, _ := os.ReadFile(log)
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, errorLines(log))
	}
	return &Restored{Container: &c, Took: took, Log: string(text)}, nil
}
