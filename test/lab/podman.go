package lab

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
)

// podman is podman with its own OCI runtime, conmon and storage.
type podman struct {
	runtime string
	archive bool
}

func (e podman) start(c *Container) error {
	var args []string
	if c.options.HooksDir != "" {
		args = append(args, "--hooks-dir", c.options.HooksDir)
	}
	args = append(args,
		"run", "--detach", "--name", c.name(),
		"--systemd", "always", "--network", "none", "--device", "/dev/autofs",
		"--pids-limit", "0", // of version 1 on this host
		"--cgroup-parent", "/", // CRIU cannot make nested ones in the host's v1 cpuset hierarchy
	)
	own, err := e.settings(c)
	if err != nil {
		return err
	}
	args = append(args, own...)
	if e.archive {
		// Only a container of an image can be imported.
		if err := e.makeImage(c); err != nil {
			return err
		}
		args = append(args, "--volume", filepath.Join(c.options.root, "usr")+":/usr", c.name())
	} else {
		args = append(args, "--rootfs", c.options.root)
	}
	id, err := e.run(append(args, c.options.Args...)...)
	if err != nil {
		return err
	}
	c.ID = strings.TrimSpace(id)
	c.groups = []string{"libpod-" + c.ID, "libpod-conmon-" + c.ID}
	if err := announceCgroups(c.groups...); err != nil {
		return err
	}
	return e.inspect(c)
}

// settings are the laboratory's own. Without them, systemd and autofs need one capability
// more than podman gives.
func (e podman) settings(c *Container) ([]string, error) {
	if c.options.Bare {
		return []string{"--cap-add", "sys_admin"}, nil
	}
	profile, err := e.seccomp(c)
	return []string{
		"--hostname", "laboratory", "--log-driver", "none", "--ulimit", "host", "--env", "container=podman",
		"--security-opt", "unmask=ALL", "--security-opt", "seccomp=" + profile,
		"--cap-drop", "all", "--cap-add", strings.Join(capabilities, ","),
	}, err
}

// makeImage creates an image, with the container's name, from its root folder, except
// /usr, which is large and becomes a volume.
func (e podman) makeImage(c *Container) error {
	path := filepath.Join(c.Bundle, "root.tar")
	if _, err := output("tar", "-C", c.options.root, "--exclude", "./usr/*", "-cf", path, "."); err != nil {
		return err
	}
	defer os.Remove(path)
	_, err := e.run("import", "--quiet", path, c.name())
	return err
}

// seccomp returns the path of podman's form of the seccomp profile in config.json.
func (e podman) seccomp(c *Container) (string, error) {
	profile := seccomp(c.options)
	if profile == nil {
		return "unconfined", nil
	}
	text, err := json.Marshal(profile)
	if err != nil {
		return "", err
	}
	path := filepath.Join(c.Bundle, "seccomp.json")
	return path, os.WriteFile(path, text, 0o644)
}

// inspect reads the container's ID, PID and groups.
func (e podman) inspect(c *Container) error {
	text, err := e.run("inspect", "--format", "{{.State.Pid}} {{.StaticDir}}", c.ID)
	if err != nil {
		return err
	}
	pid, dir, _ := strings.Cut(strings.TrimSpace(text), " ")
	c.work = dir
	return c.setPID(pid)
}

func (e podman) checkpoint(c *Container, images string) error {
	args := append([]string{"container", "checkpoint", "--keep"}, c.connections()...)
	if e.archive {
		args = append(args, "--export", filepath.Join(images, archive))
	}
	if !e.archive {
		_, err := e.run(append(args, c.ID)...)
		return err
	}
	// A container that is imported from an archive has another root folder: CRIU must
	// find the watched files by their paths.
	undo, err := appendConfig("force-irmap")
	if err != nil {
		return err
	}
	defer undo()
	if _, err := e.run(append(args, c.ID)...); err != nil {
		return err
	}
	e.removeContainer(c)
	return nil
}

// archive is the name of an exported checkpoint.
const archive = "checkpoint.tar.zst"

func (e podman) restore(c *Container, images string) error {
	args := append([]string{"container", "restore", "--keep"}, c.connections()...)
	if e.archive {
		args = append(args, "--import", filepath.Join(images, archive))
	} else {
		args = append(args, c.ID)
	}
	err := withConfig(e.runtime, c.script, func() error {
		_, err := e.run(args...)
		return err
	})
	if err != nil {
		return err
	}
	return e.inspect(c)
}

func (e podman) kill(c *Container) {
	if e.archive {
		e.removeContainer(c)
		return
	}
	_, _ = e.run("kill", c.ID) // it does not run after a checkpoint
	_, _ = e.run("wait", c.ID)
}

func (e podman) remove(c *Container) {
	e.removeContainer(c)
	if e.archive {
		_, _ = e.run("rmi", "--force", c.name())
	}
}

func (e podman) removeContainer(c *Container) {
	_, _ = e.run("rm", "--force", "--time", "0", c.ID)
}

func (e podman) run(args ...string) (string, error) {
	return output("podman", append([]string{
		"--root", filepath.Join(os.Getenv("LAB_SCRATCH"), "podman"), "--runroot", "/run/podman",
		"--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none", "--runtime", e.runtime,
	}, args...)...)
}
