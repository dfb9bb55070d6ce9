package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// containerd is a containerd of the laboratory's own, driven by its Go client
// (test/containerd-task, which `make test-e2e` builds).
type containerd struct{}

const containerdAddress = "/run/lab-containerd/sock"

var containerdStarted = sync.OnceValue(startContainerd)

func (e containerd) start(c *Container) error {
	if err := containerdStarted(); err != nil {
		return fmt.Errorf("start containerd: %w", err)
	}
	return e.pid(c, "--spec", filepath.Join(c.Bundle, "config.json"), "start", c.ID)
}

func (e containerd) checkpoint(c *Container, images string) error {
	_, err := e.run(c, "--images", images, "checkpoint", c.ID)
	return err
}

func (e containerd) restore(c *Container, images string) error {
	return withConfig("runc", c.script, func() error {
		return e.pid(c, "--images", images, "restore", c.ID)
	})
}

func (e containerd) kill(c *Container) { _, _ = e.run(c, "kill", c.ID) }

func (e containerd) remove(c *Container) { _, _ = e.run(c, "remove", c.ID) }

func (e containerd) run(c *Container, args ...string) (string, error) {
	return output(filepath.Join(Checkout(), "bin/containerd-task"), append([]string{
		"--address", containerdAddress, "--work", c.Bundle,
	}, args...)...)
}

// pid runs a command that prints the number of the container's PID 1.
func (e containerd) pid(c *Container, args ...string) error {
	text, err := e.run(c, args...)
	if err != nil {
		return err
	}
	return c.setPID(text)
}

// startContainerd starts the daemon, without Kubernetes' part. It ends with the
// node.
func startContainerd() error {
	dir := filepath.Join(os.Getenv("LAB_SCRATCH"), "containerd")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	config := filepath.Join(dir, "config.toml")
	text := fmt.Sprintf(`version = 2
root = %q
state = "/run/lab-containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images"]
[grpc]
address = %q
`, dir, containerdAddress)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("containerd", "--config", config)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	for deadline := time.Now().Add(bootLimit); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err := exec.Command("ctr", "--address", containerdAddress, "version").Run(); err == nil {
			return nil
		}
	}
	output, _ := os.ReadFile(log.Name())
	return fmt.Errorf("it did not answer within %s:\n%s", bootLimit, output)
}
