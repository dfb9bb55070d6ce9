package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Options say what to start. The zero value is a systemd container under runc
// with automounts of every kind.
type Options struct {
	Runtime string            // "runc" (default) or "crun"
	Systemd string            // of this Debian suite: "bookworm" (default), "trixie" or "sid"
	Args    []string          // PID 1; default /sbin/init, which is systemd
	Plain   bool              // no automount of any kind
	Files   map[string]string // further files of the container, by path
	Hooks   *specs.Hooks      // OCI hooks of the container
	Shared  bool              // systemd starts with shared mounts, as under LXC and systemd-nspawn
	Roles   bool              // the container has [RoleProgram]
	Seccomp *specs.LinuxSeccomp

	root string
}

// Container is a running container.
type Container struct {
	ID      string
	PID     int // of its PID 1, in the node's pid namespace
	Runtime string
	Bundle  string // folder with config.json, and with rootfs/ unless restored

	numbers *Numbers
	options Options
}

const (
	bootLimit    = 30 * time.Second
	commandLimit = 20 * time.Second
)

// Start starts a container and waits until its systemd has booted. It ends with
// the test, if it was not checkpointed by then.
func Start(t testing.TB, options Options) *Container {
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
	id := newID()
	c := &Container{ID: id, Runtime: options.Runtime, Bundle: Scratch(t, id)}
	options.root = filepath.Join(c.Bundle, "rootfs")
	c.options = options
	if err := copyRoot(tree, options.root, options); err != nil {
		t.Fatalf("root folder of container %s: %v", id, err)
	}
	if err := writeSpec(c.Bundle, id, options); err != nil {
		t.Fatalf("specification of container %s: %v", id, err)
	}
	c.numbers = HoldNumbers(t, 64)
	c.run(t, "run", "--detach", "--bundle", c.Bundle, "--pid-file", c.pidFile(), id)
	c.PID = readPID(t, c.pidFile())
	t.Cleanup(func() { c.Kill(t) })
	if systemd {
		c.waitBooted(t)
	}
	return c
}

// Kill ends the container and removes everything that the runtime and CRIU made
// for it. A container that is gone already is no error.
func (c *Container) Kill(t testing.TB) {
	t.Helper()
	_ = c.command("delete", "--force", c.ID).Run() // absent after a checkpoint
	if c.numbers != nil {
		c.numbers.Release()
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := removeCgroups(c.ID)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("container %s left cgroups behind: %v", c.ID, err)
			return
		}
	}
}

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
	return writeContent(root, options.Plain, options.Files)
}

func (c *Container) pidFile() string { return filepath.Join(c.Bundle, "pid") }

// command is a command of the container's runtime.
func (c *Container) command(args ...string) *exec.Cmd {
	cmd := exec.Command(c.Runtime, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// run runs a command of the runtime that must work. Its output goes to a file:
// a container that inherited a pipe would hold it open.
func (c *Container) run(t testing.TB, args ...string) {
	t.Helper()
	if err := c.try(args...); err != nil {
		t.Fatal(err)
	}
}

func (c *Container) try(args ...string) error {
	log := filepath.Join(c.Bundle, args[0]+".out")
	file, err := os.Create(log)
	if err != nil {
		return err
	}
	defer file.Close()
	// The container's own standard streams must not be a file outside its
	// root, which CRIU could not find again: the shell keeps them on /dev/null.
	cmd := c.command(append([]string{"--log", log}, args...)...)
	if err := runLimited(cmd, commandLimit); err != nil {
		text, _ := os.ReadFile(log)
		return fmt.Errorf("%s %s: %w: %s", c.Runtime, strings.Join(args, " "), err, text)
	}
	return nil
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

func readPID(t testing.TB, path string) int {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return pid
}
