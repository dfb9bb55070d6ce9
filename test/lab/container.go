package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Options are the options of a container. The zero value is a systemd container under
// runc with automounts of every kind.
type Options struct {
	Runtime string            // engine: "runc" (default), "crun", "podman", "containerd", "lxc" or "criu"
	OCI     string            // OCI runtime of podman: "crun" (default) or "runc"
	Archive bool              // podman: the checkpoint is exported, the container removed, and imported again
	Systemd string            // of this Debian suite: "bookworm" (default), "trixie" or "sid"
	Args    []string          // PID 1; default /sbin/init, which is systemd
	Plain   bool              // no automount of any kind
	Files   map[string]string // further files of the container, by path
	// MountRateLimit keeps systemd's limit of mount events, 5 in a second: after them it
	// sees no mount for up to a second. Without it systemd sees every change of the mount
	// table at once, and a test does not wait.
	MountRateLimit bool
	Hooks          *specs.Hooks // OCI hooks of the container, if its engine is not podman
	// HooksDir is a folder of podman's hooks.d files.
	HooksDir string
	Shared   bool // systemd starts with shared mounts, as under LXC and systemd-nspawn
	Roles    bool // the container has [RoleProgram]
	Seccomp  *specs.LinuxSeccomp
	// Mounts are further mounts of an OCI runtime's container.
	Mounts []specs.Mount
	// Propagation of an OCI runtime's container; without "rshared" its mounts do not
	// propagate out of it.
	Propagation string
	// PIDNamespace is a file of a pid namespace to join, as that of a pod.
	PIDNamespace string
	// HostCgroups is a container without a cgroup namespace, under runc and crun.
	HostCgroups bool
	// ManageGroups is how CRIU handles control groups, under runc and crun: "soft",
	// "full", "strict" or "ignore"; "" is the runtime's default.
	ManageGroups string
	// Bare is a container without the laboratory's settings: config.json is what the
	// command "spec" of runc or crun writes, with what systemd and autofs need in
	// addition; podman has its defaults; checkpoint and restore have no option that they
	// can do without. Only for these engines.
	Bare bool
	// Without are capabilities that the container does not have, under runc, crun
	// and containerd.
	Without []string

	root string
}

// Container is a running container.
type Container struct {
	ID      string // the engine's name for it
	PID     int    // of its PID 1, in the node's pid namespace
	Runtime string
	Bundle  string // folder with config.json, and with rootfs/ unless restored

	numbers *Numbers
	options Options
	engine  engine
	script  string // action script of the next restore, by the engine's own means
	work    string // where CRIU writes its logs, if not to the bundle
	leave   bool   // whether the next checkpoint leaves it running
	// ownGroup is whether the runtime restores it in a control group of its name.
	ownGroup bool
	groups   []string // its cgroups, including those that its engine creates for it, relative to the hierarchy's root
}

var (
	bootLimit    = Limit(30 * time.Second)
	commandLimit = Limit(20 * time.Second)
)

// Start starts a container and waits until its systemd has booted. It ends with
// the test, if it was not checkpointed by then.
func Start(t testing.TB, options Options) *Container {
	t.Helper()
	c, err := TryStart(t, options)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TryStart is Start for a container that the engine may refuse.
func TryStart(t testing.TB, options Options) (*Container, error) {
	t.Helper()
	RequireNode(t)
	tree := containerTree(options.Systemd)
	_, err := os.Stat(tree)
	Require(t, err == nil, "no container of "+options.Systemd+" is built: run test/node/build "+options.Systemd)
	systemd := len(options.Args) == 0
	if systemd {
		options.Args = []string{"/sbin/init"}
		if options.Shared {
			// Not rootfsPropagation: runc leaves the container's own mounts private.
			options.Args = []string{"/bin/sh", "-c", "mount --make-rshared / && exec /sbin/init"}
		}
	}
	if options.Runtime == "" {
		options.Runtime = "runc"
	}
	if options.Runtime == "podman" && options.OCI == "" {
		options.OCI = "crun"
	}
	id := newID()
	c := &Container{ID: id, Runtime: options.Runtime, Bundle: Scratch(t, id), groups: []string{id}}
	if c.engine, err = newEngine(options); err != nil {
		t.Fatal(err)
	}
	options.root = filepath.Join(c.Bundle, "rootfs")
	c.options = options
	if err := copyRoot(tree, options.root, options); err != nil {
		t.Fatalf("root folder of container %s: %v", id, err)
	}
	if err := writeSpec(c.Bundle, id, options); err != nil {
		t.Fatalf("specification of container %s: %v", id, err)
	}
	c.numbers = HoldNumbers(t, 64)
	t.Cleanup(func() { c.engine.remove(c) })
	t.Cleanup(func() { c.Kill(t) })
	if err := c.engine.start(c); err != nil {
		return nil, err
	}
	if systemd {
		c.waitBooted(t)
	}
	return c, nil
}

// Kill ends the container and removes all files and groups of the runtime and CRIU for
// it, except those that its engine needs to restore it. It is no error if the container
// has ended.
func (c *Container) Kill(t testing.TB) {
	t.Helper()
	c.engine.kill(c)
	if c.numbers != nil {
		c.numbers.Release()
	}
	err := c.removeGroups()
	if err == nil {
		return
	}
	t.Errorf("container %s left cgroups behind: %v%s", c.ID, err, describeMembers(c.groups))
	// The next test may use the same name.
	killCgroups(c.groups)
	if err := c.removeGroups(); err != nil {
		t.Errorf("container %s: its cgroups are not removed: %v", c.ID, err)
	}
}

// Delete ends the container and deletes it as its engine does.
func (c *Container) Delete(t testing.TB) {
	t.Helper()
	c.engine.kill(c)
}

// removeGroups removes the container's control groups, and waits until they are empty.
func (c *Container) removeGroups() error {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := removeCgroups(c.groups)
		if err == nil && (c.usesCrun() || version1) {
			err = removeHostCgroups(c.groups)
		}
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

func (c *Container) usesCrun() bool { return c.options.Runtime == "crun" || c.options.OCI == "crun" }

// containerTree is the cached tree of a Debian suite.
func containerTree(suite string) string {
	tree := os.Getenv("LAB_CONTAINER_ROOT")
	if suite != "" && suite != "bookworm" {
		tree += "-" + suite
	}
	return tree
}

// copyRoot makes the container's root folder out of the cached tree: programs
// and libraries as hard links, which nothing writes to, the rest as copies.
func copyRoot(tree, root string, options Options) error {
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	script := `set -e; cd "$1"
cp -al usr "$2/"
for d in *; do [ "$d" = usr ] || cp -a "$d" "$2/"; done`
	out, err := exec.Command("sh", "-c", script, "copy", tree, root).CombinedOutput()
	if err != nil {
		return fmt.Errorf("copy %s: %w: %s", tree, err, out)
	}
	if options.Roles {
		if err := installRoles(root); err != nil {
			return err
		}
	}
	files := options.Files
	if !options.MountRateLimit {
		files = withoutMountRateLimit(files)
	}
	return writeContent(root, options.Plain, files)
}

// AddRoot makes a further root folder inside the container's, for a container in the
// container.
func AddRoot(t testing.TB, c *Container, name string, options Options) {
	t.Helper()
	if err := copyRoot(containerTree(options.Systemd), filepath.Join(c.options.root, name), options); err != nil {
		t.Fatalf("root folder %s in container %s: %v", name, c.ID, err)
	}
}

// runLimited runs a command and kills its whole process group at the limit.
func runLimited(cmd *exec.Cmd, limit time.Duration) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-done
		return fmt.Errorf("killed after %s: %w", limit, context.DeadlineExceeded)
	}
}
