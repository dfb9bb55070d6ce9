package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// recipeLimit is the time limit of one command of a recipe, which may copy an image.
const recipeLimit = 2 * time.Minute

// Shell runs a command line with additional environment variables and returns its
// standard output, which goes to a file, because a container may keep its streams open.
func Shell(line string, env []string) (string, error) {
	dir, err := os.MkdirTemp("", "shell")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	cmd := command("bash", "-o", "pipefail", "-c", line)
	cmd.Env = append(os.Environ(), env...)
	files := make([]*os.File, 2)
	for i := range files {
		if files[i], err = os.Create(filepath.Join(dir, fmt.Sprint(i))); err != nil {
			return "", err
		}
		defer files[i].Close()
	}
	cmd.Stdout, cmd.Stderr = files[0], files[1]
	err = runLimited(cmd, recipeLimit)
	out, _ := os.ReadFile(files[0].Name())
	if err != nil {
		text, _ := os.ReadFile(files[1].Name())
		return "", fmt.Errorf("%w: %s%s", err, out, text)
	}
	return string(out), nil
}

// Stopped prepares the bundle of a container that the test starts itself. Its remains are
// removed at the end of the test.
func Stopped(t testing.TB, options Options) *Container {
	t.Helper()
	c, _ := Prepare(t, options)
	var err error
	if c.engine, err = newEngine(options); err != nil {
		c.engine = starter
	}
	t.Cleanup(func() { c.Kill(t) })
	return c
}

// WrapLXC returns an environment in which LXC's commands find the laboratory's container.
func WrapLXC(t testing.TB, c *Container) string {
	t.Helper()
	dir := Scratch(t, c.ID+"-bin")
	for _, program := range []string{"lxc-checkpoint", "lxc-info"} {
		text := "#!/bin/sh\nexec /usr/bin/" + program + " --lxcpath '" + (lxc{}).dir(c) + "' \"$@\"\n"
		if err := os.WriteFile(filepath.Join(dir, program), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return "PATH=" + dir + ":" + os.Getenv("PATH")
}

// PodmanNode returns an environment in which podman has its own storage and works in the
// laboratory: the node has no systemd, and a nested group cannot be restored where the
// host's hierarchies of version 1 have cpuset.
func PodmanNode(t testing.TB, name string) []string {
	t.Helper()
	dir := Scratch(t, "podman-"+name)
	files := map[string]string{
		"storage.conf": fmt.Sprintf("[storage]\ndriver = \"vfs\"\ngraphroot = %q\nrunroot = %q\n", filepath.Join(dir, "graph"), "/run/podman-recipe"),
		"containers.conf": "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n" +
			"[containers]\npids_limit = 0\ndefault_ulimits = []\nlog_driver = \"none\"\ncgroups = \"enabled\"\n",
	}
	for file, text := range files {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text := "#!/bin/sh\ncase $1 in run) shift; set -- run --cgroup-parent / \"$@\" ;; esac\nexec /usr/bin/podman \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, "podman"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return []string{"PATH=" + dir + ":" + os.Getenv("PATH"), "CONTAINERS_STORAGE_CONF=" + filepath.Join(dir, "storage.conf"), "CONTAINERS_CONF=" + filepath.Join(dir, "containers.conf")}
}

// AnnouncePodman reads podman's ID of a container and its control groups, so that they
// are removed at the end.
func AnnouncePodman(t testing.TB, c *Container, env []string) (id string) {
	t.Helper()
	out, err := Shell("podman inspect --format '{{.Id}}' "+c.ID, env)
	if err != nil {
		t.Fatal(err)
	}
	id = strings.TrimSpace(out)
	c.groups = []string{"libpod-" + id, "libpod-conmon-" + id}
	if err := announceCgroups(c.groups...); err != nil {
		t.Fatal(err)
	}
	return id
}
