package lab

import "fmt"

// plainCRIU is the criu command without an engine. The container was started by runc,
// which has no data about it after the checkpoint.
type plainCRIU struct{}

var starter = oci{runtime: "runc"}

func (plainCRIU) start(c *Container) error { return starter.start(c) }

func (e plainCRIU) checkpoint(c *Container, images string) error {
	return e.run(c, "dump", images, "--tree", fmt.Sprint(c.PID))
}

func (e plainCRIU) restore(c *Container, images string) error {
	args := []string{"--restore-detached", "--pidfile", c.pidFile(), "--root", c.options.root}
	if c.script != "" {
		args = append(args, "--action-script", c.script)
	}
	if err := e.run(c, "restore", images, args...); err != nil {
		return err
	}
	return c.readPID()
}

func (plainCRIU) kill(c *Container) {
	starter.kill(c)
	killCgroups(c.groups)
}

func (plainCRIU) remove(*Container) {}

func (plainCRIU) run(c *Container, verb, images string, args ...string) error {
	line := append([]string{
		"criu", verb, "--images-dir", images, "--work-dir", c.Bundle, "--log-file", verb + ".log", "-v4",
		"--manage-cgroups=full", "--tcp-established", "--file-locks",
	}, args...)
	// The root of a mount tree has to be a mount point. Only this process sees this one.
	shell := append([]string{"--mount", "--propagation", "slave", "sh", "-c", `mount --bind "$0" "$0" && exec "$@"`, c.options.root}, line...)
	_, err := output("unshare", shell...)
	return err
}
