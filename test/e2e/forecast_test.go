package e2e

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// inspectCheckpoint returns the problems that "inspect" finds for a checkpoint of a running
// container.
func inspectCheckpoint(t *testing.T, c *lab.Container) string {
	t.Helper()
	result := lab.RunHook(t, nil, nil, "inspect", strconv.Itoa(c.PID))
	if result.Status != 0 {
		t.Errorf("inspect: exit status %d: %s", result.Status, result.Stderr)
	}
	var lines []string
	for line := range strings.Lines(strings.ReplaceAll(string(result.Stdout), "\n  ", " ")) { // a text continues below
		if strings.HasPrefix(line, "checkpoint: ") || strings.HasPrefix(line, "restore of a checkpoint: ") {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		t.Errorf("inspect reports nothing about a checkpoint:\n%s", result.Stdout)
	}
	t.Logf("inspect:\n%s", strings.Join(lines, ""))
	return strings.Join(lines, "")
}

// TestForecastDump has containers that CRIU cannot dump: inspect reports the problem
// before, and CRIU fails with it.
func TestForecastDump(t *testing.T) {
	requireHook(t)
	for _, test := range []struct {
		name, predicted, criu string
		spoil                 func(c *lab.Container)
	}{
		{"a group that is gone", "a control group is watched that does not exist any more", "Can't dump that handle", func(c *lab.Container) {
			c.Run(t, "systemctl", "start", "watch-gone.service")
			waitUntil(t, "the group is watched and gone", func() bool {
				return exec.Command("test", "-e", "/proc/"+strconv.Itoa(c.PID)+"/root/run/watch-gone").Run() == nil
			})
		}},
		{"an active direct map", `automount's direct or offset map is mounted at "` + lab.Direct + `"`, "overmounted", func(c *lab.Container) {
			c.Run(t, "cat", lab.Direct+"/"+lab.Marker)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := lab.Start(t, lab.Options{Roles: true, Files: map[string]string{
				"/etc/systemd/system/watch-gone.service": "[Service]\nExecStart=" + lab.RoleProgram + " watch-gone\n",
			}})
			c.Populate(t)
			if output := inspectCheckpoint(t, c); strings.Contains(output, test.predicted) {
				t.Errorf("predicted too early: %s", output)
			}
			test.spoil(c)
			if output := inspectCheckpoint(t, c); !strings.Contains(output, test.predicted) {
				t.Errorf("want %q", test.predicted)
			}
			if _, err := c.TryCheckpoint(t); err == nil || !strings.Contains(err.Error(), test.criu) {
				t.Errorf("CRIU: %v; want %q", err, test.criu)
			}
		})
	}
}

// TestForceIrmap restores a container on a copy of its root filesystem, as on another
// node, without and with CRIU's option of that name.
func TestForceIrmap(t *testing.T) {
	requireHook(t)
	lab.InstallActionScript(t, "")
	t.Cleanup(func() { mustRun(t, "uninstall") })
	const predicted = `"/etc/localtime" is watched`
	for _, option := range []bool{false, true} {
		t.Run("force-irmap "+strconv.FormatBool(option), func(t *testing.T) {
			args := []string{"install"}
			if option {
				args = append(args, "--force-irmap")
			}
			mustRun(t, args...)
			if text := doctor(t); strings.Contains(text, "sets force-irmap") != option {
				t.Errorf("doctor:\n%s", text)
			}
			c := lab.Start(t, lab.Options{})
			c.Run(t, "sh", "-c", "mkdir -p /usr/share/zoneinfo/Etc && echo TZ >/usr/share/zoneinfo/Etc/Lab && ln -sf /usr/share/zoneinfo/Etc/Lab /etc/localtime && systemctl daemon-reexec")
			c.Populate(t)
			s := &snapshot{}
			if output := inspectCheckpoint(t, c); strings.Contains(output, predicted) == option {
				t.Errorf("inspect: %s", output)
			}
			s.Checkpoint = c.Checkpoint(t)
			copyInPlace(t, s.Root())
			r, err := s.TryRestore(t, lab.RestoreOptions{})
			if option {
				if err != nil {
					t.Fatalf("%v\n%s", err, hookLines(s.RestoreLog()))
				}
				checkPreserved(t, r)
				r.CheckAnswers(t, lab.Accesses)
				return
			}
			if err == nil {
				r.Kill(t)
			}
			if err == nil || !strings.Contains(err.Error(), "Stale file handle") {
				t.Errorf("restored on another root filesystem: %v", err)
			}
			if log := hookLines(s.RestoreLog()); !strings.Contains(log, "on another root filesystem this restore fails") {
				t.Errorf("the program did not log the reason:\n%s", log)
			}
		})
	}
}

// copyInPlace replaces a folder by its copy.
func copyInPlace(t *testing.T, dir string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", dir, dir+".copy").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir+".copy", dir); err != nil {
		t.Fatal(err)
	}
}

// TestForecastOwnName: the group's name is in the watches of a container without a
// cgroup namespace.
func TestForecastOwnName(t *testing.T) {
	requireHook(t)
	c := lab.Start(t, lab.Options{HostCgroups: true})
	if output := inspectCheckpoint(t, c); !strings.Contains(output, c.ID) || !strings.Contains(output, "no cgroup namespace") {
		t.Error("not predicted")
	}
}
