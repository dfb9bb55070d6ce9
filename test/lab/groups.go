package lab

import (
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// InstallGroupsOnly installs an action script, until the test ends, that only creates the
// container's control groups. Without them the restore of a systemd container fails in
// CRIU (TestFailsWithoutGroups), and a test could not show the hang without the program.
// The groups are those of the checkpointed container, so it does not work under another
// name or control group.
func (cp *Checkpoint) InstallGroupsOnly(t testing.TB) {
	t.Helper()
	InstallGroupsOnly(t, cp.cgroups)
}

// InstallGroupsOnly is [Checkpoint.InstallGroupsOnly] for any groups, by their
// directories, parents first.
func InstallGroupsOnly(t testing.TB, groups []string) {
	t.Helper()
	dir, err := os.MkdirTemp(Scratch(t, "scripts"), "groups")
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"+groupsShell(groups)), 0o755); err != nil {
		t.Fatal(err)
	}
	InstallActionScript(t, script)
}

// GroupsShell returns the same as shell commands, for [InstallWrappedScript].
func (cp *Checkpoint) GroupsShell() string { return groupsShell(cp.cgroups) }

func groupsShell(groups []string) string {
	text := "if [ \"$CRTOOLS_SCRIPT_ACTION\" = post-setup-namespaces ]; then mkdir -p"
	for _, dir := range groups {
		text += " '" + strings.ReplaceAll(dir, "'", `'\''`) + "'"
	}
	return text + "; fi\n"
}

// Groups returns the control groups at the checkpoint beneath the container's own,
// relative to it, parents first.
func (cp *Checkpoint) Groups() []string {
	return relativeTo(path.Join(cgroupRoot, cp.container.group()), cp.cgroups)
}

// GroupsLeft returns the control groups of the container that exist.
func (cp *Checkpoint) GroupsLeft(t testing.TB) []string {
	t.Helper()
	dirs, err := listCgroups(cp.container.groups)
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}

// group returns the container's own control group, relative to the hierarchy's root.
func (c *Container) group() string { return c.groups[0] }

// rename gives the container another name or control group, with the same files, for a
// restore.
func (c *Container) rename(options RestoreOptions) error {
	if c.options.Runtime != "runc" && c.options.Runtime != "crun" {
		return nil
	}
	group := c.group()
	if options.ID != "" {
		c.ID, group = options.ID, options.ID
	}
	if options.CgroupsPath != "" {
		group = strings.TrimPrefix(options.CgroupsPath, "/")
	}
	if group != c.group() {
		c.groups = []string{group, c.group()} // runc uses the old one, too
	}
	file := filepath.Join(c.Bundle, "config.json")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var spec specs.Spec
	if err := json.Unmarshal(text, &spec); err != nil {
		return err
	}
	if spec.Linux.CgroupsPath == "/"+group {
		return nil
	}
	spec.Linux.CgroupsPath = "/" + group
	return saveSpec(c.Bundle, &spec)
}

// RemoveFailed removes the engine's data about a container whose restore failed: crun and
// podman keep its name.
func (cp *Checkpoint) RemoveFailed(t testing.TB) {
	t.Helper()
	c := cp.container
	c.Kill(t)
}

// OwnGroup returns the root control group of the container's systemd, from the kernel.
// runc 1.1 restores a container into the group in which it was checkpointed, whatever its
// name is.
func (c *Container) OwnGroup(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", c.PID))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if group, ok := strings.CutPrefix(line, "0::/"); ok {
			return strings.TrimSuffix(strings.TrimSpace(group), "/init.scope")
		}
	}
	t.Fatalf("/proc/%d/cgroup: no line of version 2:\n%s", c.PID, text)
	return ""
}

// GroupsBeneath returns the control groups beneath another one, relative to it, parents
// first.
func GroupsBeneath(t testing.TB, group string) []string {
	t.Helper()
	dirs, err := listCgroups([]string{group})
	if err != nil {
		t.Fatal(err)
	}
	return relativeTo(path.Join(cgroupRoot, group), dirs)
}

// Named reports whether a control group is the one that the engine gave the container.
func (c *Container) Named(group string) bool { return c.group() == group }

func relativeTo(top string, dirs []string) []string {
	var below []string
	for _, dir := range dirs {
		if rel, ok := strings.CutPrefix(dir, top+"/"); ok {
			below = append(below, rel)
		}
	}
	return below
}

// RestoreLog is CRIU's log of the last restore.
func (cp *Checkpoint) RestoreLog() string {
	text, _ := os.ReadFile(cp.container.log("restore.log"))
	return string(text)
}
