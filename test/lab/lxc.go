package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// lxc is LXC with its own commands.
type lxc struct{}

const lxcConfig = `lxc.uts.name = laboratory
lxc.rootfs.path = dir:%[1]s
lxc.mount.auto = proc:rw sys:rw cgroup:rw
lxc.net.0.type = none
lxc.console.path = none
lxc.tty.max = 0
lxc.pty.max = 1024
lxc.autodev = 1
lxc.hook.autodev = %[2]s
lxc.cap.keep = %[3]s
lxc.environment = container=lxc
lxc.cgroup.dir.container = %[4]s
lxc.cgroup.dir.monitor = %[4]s-monitor
lxc.cgroup.dir.monitor.pivot = %[4]s-pivot
`

// start writes the container's capabilities in LXC's form, and creates /dev/autofs in a
// hook: for a bind mount from outside, CRIU would need an option.
func (e lxc) start(c *Container) error {
	c.groups = []string{c.ID, c.ID + "-monitor", c.ID + "-pivot"}
	autodev := filepath.Join(c.Bundle, "autodev")
	if err := os.WriteFile(autodev, []byte("#!/bin/sh\nexec mknod \"$LXC_ROOTFS_MOUNT/dev/autofs\" c 10 235\n"), 0o755); err != nil {
		return err
	}
	caps := strings.ToLower(strings.ReplaceAll(strings.Join(capabilities, " "), "CAP_", ""))
	text := fmt.Sprintf(lxcConfig, c.options.root, autodev, caps, c.ID)
	if profile := seccomp(c.options); profile != nil {
		path := filepath.Join(c.Bundle, "seccomp.lxc")
		if err := os.WriteFile(path, lxcSeccomp(profile), 0o644); err != nil {
			return err
		}
		text += "lxc.seccomp.profile = " + path + "\n"
	}
	dir := filepath.Join(e.dir(c), c.ID)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "config"), []byte(text), 0o644); err != nil {
		return err
	}
	if _, err := e.run(c, "lxc-start", "--daemon"); err != nil {
		return err
	}
	return e.pid(c)
}

// lxcSeccomp returns a profile that refuses some system calls, in LXC's form
// (lxc.container.conf(5), SECCOMP CONFIGURATION).
func lxcSeccomp(profile *specs.LinuxSeccomp) []byte {
	text := []byte("2\ndenylist\n[all]\n")
	for _, rule := range profile.Syscalls {
		for _, name := range rule.Names {
			text = fmt.Appendf(text, "%s errno %d", name, *rule.ErrnoRet)
			for _, arg := range rule.Args {
				text = fmt.Appendf(text, " [%d,%d,%s]", arg.Index, arg.Value, arg.Op)
			}
			text = append(text, '\n')
		}
	}
	return text
}

func (e lxc) checkpoint(c *Container, images string) error {
	_, err := e.run(c, "lxc-checkpoint", "--checkpoint-dir", images, "--stop", "--verbose")
	c.work = images
	return err
}

func (e lxc) restore(c *Container, images string) error {
	c.work = images
	args := []string{"--checkpoint-dir", images, "--restore", "--verbose"}
	if c.script != "" {
		args = append(args, "--action-script", c.script)
	}
	if _, err := e.run(c, "lxc-checkpoint", args...); err != nil {
		return err
	}
	return e.pid(c)
}

func (e lxc) kill(c *Container) {
	_, _ = e.run(c, "lxc-stop", "--kill") // it does not run after a checkpoint
	killCgroups(c.groups)
}

func (lxc) remove(*Container) {}

func (lxc) dir(c *Container) string { return filepath.Join(c.Bundle, "lxc") }

func (e lxc) run(c *Container, program string, args ...string) (string, error) {
	return output(program, append([]string{"--lxcpath", e.dir(c), "--name", c.ID}, args...)...)
}

func (e lxc) pid(c *Container) error {
	text, err := e.run(c, "lxc-info", "--pid", "--no-humanize")
	if err != nil {
		return err
	}
	return c.setPID(text)
}
