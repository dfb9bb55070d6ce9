package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// engine starts, checkpoints and restores containers.
type engine interface {
	// start starts the container, whose root folder and config.json exist, and sets its
	// PID, and its ID and groups if the engine chooses others.
	start(c *Container) error
	// checkpoint dumps the container into a folder and ends it.
	checkpoint(c *Container, images string) error
	// restore restores it and sets its PID. If the container has a script, the engine
	// makes it CRIU's action script.
	restore(c *Container, images string) error
	// kill ends it, if it runs, and keeps the files that restore needs.
	kill(c *Container)
	// remove removes all its remaining files and groups.
	remove(c *Container)
}

func newEngine(o Options) (engine, error) {
	switch o.Runtime {
	case "runc", "crun":
		return oci{runtime: o.Runtime}, nil
	case "criu":
		return plainCRIU{}, nil
	case "lxc":
		return lxc{}, nil
	case "podman":
		return podman{runtime: o.OCI, archive: o.Archive}, nil
	case "containerd":
		return containerd{}, nil
	}
	return nil, fmt.Errorf("the laboratory knows no engine %q", o.Runtime)
}

// withConfig calls a function while the configuration file that an OCI runtime passes to
// CRIU names an action script. An empty script means no such file.
func withConfig(runtime, script string, f func() error) error {
	if script == "" {
		return f()
	}
	path := filepath.Join("/etc/criu", runtime+".conf")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte("action-script "+script+"\n"), 0o644); err != nil {
		return err
	}
	defer os.Remove(path)
	return f()
}

// oci is an OCI runtime, runc or crun, without an engine.
type oci struct{ runtime string }

func (e oci) start(c *Container) error {
	if err := e.run(c, "run", "--detach", "--bundle", c.Bundle, "--pid-file", c.pidFile(), c.ID); err != nil {
		return err
	}
	return c.readPID()
}

func (e oci) checkpoint(c *Container, images string) error {
	args := slices.Concat([]string{"checkpoint"}, c.manage(), c.connections())
	if c.leave {
		args = append(args, "--leave-running")
	}
	return e.run(c, append(args, "--image-path", images, "--work-path", c.Bundle, c.ID)...)
}

// connections returns the options for what CRIU refuses to dump otherwise.
func (c *Container) connections() []string {
	if c.options.Bare {
		return nil
	}
	return []string{"--tcp-established", "--file-locks"}
}

// manage returns the option for CRIU's handling of control groups.
func (c *Container) manage() []string {
	if c.options.ManageGroups == "" {
		return nil
	}
	return []string{"--manage-cgroups-mode", c.options.ManageGroups}
}

func (e oci) restore(c *Container, images string) error {
	err := withConfig(e.runtime, c.script, func() error {
		args := slices.Concat([]string{"restore"}, c.manage(), c.connections())
		return e.run(c, append(args, "--detach", "--image-path", images, "--work-path", c.Bundle, "--bundle", c.Bundle,
			"--pid-file", c.pidFile(), c.ID)...)
	})
	if err != nil {
		return err
	}
	return c.readPID()
}

func (e oci) kill(c *Container) {
	_ = runLimited(command(e.runtime, "delete", "--force", c.ID), commandLimit) // absent after a checkpoint
}

func (e oci) remove(*Container) {}

// run runs a command of the runtime. The container's own standard streams must
// not be a file outside its root, which CRIU could not find again: they are
// /dev/null, and the runtime writes to a log.
func (e oci) run(c *Container, args ...string) error {
	log := filepath.Join(c.Bundle, args[0]+".out")
	if err := os.WriteFile(log, nil, 0o644); err != nil {
		return err
	}
	cmd, limit := command(e.runtime, append([]string{"--log", log}, args...)...), commandLimit
	if c.ownGroup {
		cmd, limit = command("sh", append([]string{"-c", inOwnGroup, "restore", c.ID}, cmd.Args...)...), cloneLimit
	}
	if err := runLimited(cmd, limit); err != nil {
		text, _ := os.ReadFile(log)
		return fmt.Errorf("%s %s: %w: %s", e.runtime, strings.Join(args, " "), err, text)
	}
	return nil
}

// command is a command in a process group of its own, on /dev/null.
func command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// combinedOutput runs a command and returns its output, which goes to a file: a stuck
// grandchild would keep a pipe open.
func combinedOutput(cmd *exec.Cmd, limit time.Duration) (string, error) {
	file, err := os.CreateTemp("", "output")
	if err != nil {
		return "", err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	err = runLimited(cmd, limit)
	text, readErr := os.ReadFile(file.Name())
	if readErr != nil {
		return "", readErr
	}
	return string(text), err
}

// output runs a command that must succeed and returns its standard output, which goes to
// a file: a container that inherited a pipe would keep it open.
func output(name string, args ...string) (string, error) {
	dir, err := os.MkdirTemp("", "output")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	cmd := command(name, args...)
	stdout, err := os.Create(filepath.Join(dir, "stdout"))
	if err != nil {
		return "", err
	}
	defer stdout.Close()
	stderr, err := os.Create(filepath.Join(dir, "stderr"))
	if err != nil {
		return "", err
	}
	defer stderr.Close()
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err = runLimited(cmd, commandLimit)
	message, _ := os.ReadFile(stderr.Name())
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, message)
	}
	text, err := os.ReadFile(stdout.Name())
	return string(text), err
}

// name returns the laboratory's name for the container.
func (c *Container) name() string { return filepath.Base(c.Bundle) }

// log returns the path of one of CRIU's logs.
func (c *Container) log(name string) string { return filepath.Join(c.workDir(), name) }

// workDir returns the folder of CRIU's logs.
func (c *Container) workDir() string {
	if c.work != "" {
		return c.work
	}
	return c.Bundle
}

func (c *Container) pidFile() string { return filepath.Join(c.Bundle, "pid") }

func (c *Container) readPID() error {
	text, err := os.ReadFile(c.pidFile())
	if err != nil {
		return err
	}
	return c.setPID(string(text))
}

func (c *Container) setPID(text string) (err error) {
	if c.PID, err = strconv.Atoi(strings.TrimSpace(text)); err == nil && c.PID <= 0 {
		err = fmt.Errorf("its PID 1 has the number %d", c.PID)
	}
	if err != nil {
		return fmt.Errorf("container %s: %w", c.ID, err)
	}
	return nil
}
