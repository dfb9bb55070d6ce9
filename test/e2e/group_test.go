package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/manifests"
	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestMemoryOfContainer: the memory of the program is not charged to the control group of
// a container with a limit, in which CRIU calls the action script.
func TestMemoryOfContainer(t *testing.T) {
	lab.RequireNode(t)
	const folder = "/sys/fs/cgroup/memory" // mount point of version 1, if there is one
	if err := os.Mkdir(folder, 0o755); err == nil {
		t.Cleanup(func() { _ = os.Remove(folder) })
	}
	group := limitedGroup(t, "memory", map[bool]string{true: "memory.max", false: "memory.limit_in_bytes"}, 64<<20, folder)
	dir := lab.Scratch(t, "memory")
	program := filepath.Join(dir, "program")
	script, err := manifests.ActionScript(program)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{program: "#!/bin/sh\ncat /proc/self/cgroup\n", script.Name: script.Data} {
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, stage := range []string{"pre-restore", "pre-resume", "post-resume"} {
		cmd := exec.Command("sh", "-c", `echo $$ >"$0/cgroup.procs" && grep -q "$1" /proc/self/cgroup && exec "$2"`, group, filepath.Base(group), script.Name)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "CRTOOLS_SCRIPT_ACTION=" + stage}
		out, err := cmd.CombinedOutput()
		if err != nil || strings.Contains(string(out), filepath.Base(group)) {
			t.Errorf("%s: the program ran in (%v)\n%s", stage, err, out)
		}
	}
}
