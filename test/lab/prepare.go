package lab

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Prepare creates all files that an engine needs to start a systemd container, and takes
// device numbers as [Start] does: for engines outside this package. The caller starts the
// container, calls Started and cleans up.
func Prepare(t testing.TB, options Options) (*Container, *specs.Spec) {
	t.Helper()
	RequireNode(t)
	if len(options.Args) == 0 {
		options.Args = []string{"/sbin/init"}
	}
	if options.Runtime == "" {
		options.Runtime = "runc"
	}
	id := newID()
	c := &Container{ID: id, Runtime: options.Runtime, Bundle: Scratch(t, id), groups: []string{id}, engine: oci{runtime: options.Runtime}}
	options.root = filepath.Join(c.Bundle, "rootfs")
	c.options = options
	if err := copyRoot(containerTree(options.Systemd), options.root, options); err != nil {
		t.Fatalf("root folder of container %s: %v", id, err)
	}
	if err := writeSpec(c.Bundle, id, options); err != nil {
		t.Fatalf("specification of container %s: %v", id, err)
	}
	text, err := os.ReadFile(filepath.Join(c.Bundle, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(text, &spec); err != nil {
		t.Fatal(err)
	}
	c.numbers = HoldNumbers(t, 64)
	return c, &spec
}

// Started sets the container's PID 1. It waits until its systemd has booted, unless it
// was restored.
func (c *Container) Started(t testing.TB, pid int, restored bool) {
	t.Helper()
	c.PID = pid
	if !restored {
		c.waitBooted(t)
	}
}

// FreeNumbers frees the device numbers that were taken while the container booted, so
// that a restore gives every file system another one.
func (c *Container) FreeNumbers() {
	if c.numbers != nil {
		c.numbers.Release()
	}
}

// Cgroups lists the folders of the container's control groups, parents first.
func (c *Container) Cgroups(t testing.TB) []string {
	t.Helper()
	dirs, err := listCgroups(c.groups)
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}
