package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// recipes are the blocks of docs/checkpoint-restore.md, by the word after "sh".
func recipes(t *testing.T) map[string][]string {
	t.Helper()
	blocks := map[string][]string{}
	name := ""
	for line := range strings.Lines(readFile(t, filepath.Join(lab.Checkout(), "docs/checkpoint-restore.md"))) {
		line = strings.TrimSpace(line)
		fence, marked := strings.CutPrefix(line, "```")
		switch {
		case marked && name != "":
			name = ""
		case marked:
			kind, word, _ := strings.Cut(fence, " ")
			if name = word; kind != "sh" || word == "" {
				t.Fatalf("a block without a name: %q", line)
			}
		case name != "":
			blocks[name] = append(blocks[name], line)
		}
	}
	return blocks
}

// recipe is a block of shell commands, with commands before and after its lines.
type recipe struct {
	name   string
	c      *lab.Container
	env    []string
	before func(line string) // called for each line
}

// run runs the lines of a block.
func (r recipe) run(t *testing.T, blocks map[string][]string) {
	t.Helper()
	lines := blocks[r.name]
	if len(lines) == 0 {
		t.Fatalf("the document has no block %q", r.name)
	}
	delete(blocks, r.name)
	dir := lab.Scratch(t, r.c.ID+"-tmp")
	for _, line := range lines {
		line = strings.NewReplacer("/srv/legacy", r.c.Bundle, "/var/tmp/legacy", filepath.Join(dir, "legacy"), "legacy", r.c.ID).
			Replace(strings.ReplaceAll(line, "autofs-restore-hook", installed))
		if r.before != nil {
			r.before(line)
		}
		t.Log(line)
		if out, err := lab.Shell(line, r.env); err != nil {
			t.Fatalf("%s: %v", line, err)
		} else if strings.Contains(line, " inspect \"") && !strings.Contains(out, "checkpoint: no problem for CRIU was found") {
			t.Errorf("inspect:\n%s", out)
		}
	}
}

// TestRecipe runs the commands of docs/checkpoint-restore.md.
func TestRecipe(t *testing.T) {
	requireHook(t)
	lab.InstallActionScript(t, "")
	if err := os.RemoveAll("/run/autofs-restore-hook"); err != nil { // doctor lists reports
		t.Fatal(err)
	}
	blocks := recipes(t)
	t.Cleanup(func() { mustRun(t, "uninstall") })
	install := recipe{name: "install", c: lab.Stopped(t, lab.Options{})}
	mustRun(t, "install") // the files with which the block installs exist already
	install.run(t, blocks)

	for _, runtime := range []string{"runc", "crun"} {
		t.Run(runtime, func(t *testing.T) {
			c := lab.Stopped(t, lab.Options{Runtime: runtime})
			pid := func() int { return pidOf(t, runtime+" state "+c.ID+" | jq .pid", nil) }
			recipe{name: runtime, c: c, before: func(line string) {
				if strings.Contains(line, " checkpoint ") {
					ready(t, c, pid())
				}
			}}.run(t, blocks)
			works(t, c, pid())
		})
	}
	t.Run("criu", func(t *testing.T) {
		c := lab.Start(t, lab.Options{Runtime: "criu"})
		c.Populate(t)
		recipe{name: "criu", c: c, before: func(line string) {
			if strings.HasPrefix(line, "mount ") {
				t.Cleanup(func() { _, _ = lab.Shell("umount '"+c.Bundle+"/rootfs'", nil) })
				c.FreeNumbers()
			}
		}}.run(t, blocks)
		works(t, c, pidOf(t, "cat /sys/fs/cgroup/"+c.ID+"/init.scope/cgroup.procs | head -n 1", nil))
	})
	t.Run("LXC", func(t *testing.T) {
		c := lab.Start(t, lab.Options{Runtime: "lxc"})
		c.Populate(t)
		env := []string{"LXC_LXCPATH=" + filepath.Join(c.Bundle, "lxc")}
		wrap := lab.WrapLXC(t, c)
		recipe{name: "lxc", c: c, env: append(env, wrap), before: func(string) { c.FreeNumbers() }}.run(t, blocks)
		works(t, c, pidOf(t, "lxc-info --pid --no-humanize --name "+c.ID, []string{wrap}))
	})
	t.Run("podman", func(t *testing.T) { podmanRecipes(t, blocks) })
	for name := range blocks {
		t.Errorf("the block %q was not run", name)
	}
}

// podmanRecipes run with a configuration for the laboratory, and two storages as if they
// were on two nodes.
func podmanRecipes(t *testing.T, blocks map[string][]string) {
	first, second := lab.PodmanNode(t, "first"), lab.PodmanNode(t, "second")
	inspect := func(env []string, c *lab.Container) int {
		return pidOf(t, "podman inspect --format '{{.State.Pid}}' "+c.ID, env)
	}
	for _, name := range []string{"podman", "podman-export"} {
		t.Run(name, func(t *testing.T) {
			c := lab.Stopped(t, lab.Options{Runtime: "podman", OCI: "crun"})
			if _, err := lab.Shell("tar -C '"+c.Bundle+"/rootfs' -c . | podman import --quiet - "+c.ID, first); err != nil {
				t.Fatal(err)
			}
			for _, env := range [][]string{first, second} {
				t.Cleanup(func() { _, _ = lab.Shell("podman rm --force --time 0 "+c.ID+"; podman rmi --force "+c.ID, env) })
			}
			id := ""
			recipe{name: name, c: c, env: first, before: func(line string) {
				if strings.Contains(line, " checkpoint ") {
					id = lab.AnnouncePodman(t, c, first)
					ready(t, c, inspect(first, c))
				}
			}}.run(t, blocks)
			env := first
			if name == "podman-export" {
				recipe{name: "podman-import", c: c, env: second}.run(t, blocks)
				env = second
			}
			pid := inspect(env, c)
			c.ID = id // in the report
			works(t, c, pid)
		})
	}
}

// ready waits until the container that a recipe has started has booted.
func ready(t *testing.T, c *lab.Container, pid int) {
	t.Helper()
	c.Started(t, pid, false)
	c.Populate(t)
	c.FreeNumbers()
}

func works(t *testing.T, c *lab.Container, pid int) {
	t.Helper()
	c.Started(t, pid, true)
	c.CheckAnswers(t, lab.Accesses)
	checkNoWaiters(t, c)
	report := c.ReadReport(t)
	preserved := 0
	for _, m := range report.Mounts {
		if m.Outcome == "preserved" {
			preserved++
		}
	}
	if report.Outcome != "repaired" || preserved == 0 {
		t.Errorf("report: %q, %d mounts preserved", report.Outcome, preserved)
	}
}

func pidOf(t *testing.T, command string, env []string) int {
	t.Helper()
	out, err := lab.Shell(command, env)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(out))
	if err != nil || pid <= 0 {
		t.Fatalf("%s: %q is no process", command, out)
	}
	return pid
}
