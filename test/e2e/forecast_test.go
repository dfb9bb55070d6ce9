package e2e

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// inspected is what "inspect" says about a checkpoint of a running container.
func inspected(t *testing.T, c *lab.Container) string {
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
		t.Errorf("inspect says nothing about a checkpoint:\n%s", result.Stdout)
	}
	t.Logf("inspect:\n%s", strings.Join(lines, ""))
	return strings.Join(lines, "")
}

// TestForecastDump has containers that CRIU cannot dump: inspect says so before, and
// CRIU says what was foretold.
func TestForecastDump(t *testing.T) {
	requireHook(t)
	for _, test := range []struct {
		name, foretold, criu string
		spoil                func(c *lab.Container)
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
			if said := inspected(t, c); strings.Contains(said, test.foretold) {
				t.Errorf("foretold too early: %s", said)
			}
			test.spoil(c)
			if said := inspected(t, c); !strings.Contains(said, test.foretold) {
				t.Errorf("want %q", test.foretold)
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
	t.Cleanup(func() { succeeds(t, "uninstall") })
	const foretold = `"/etc/localtime" is watched`
	for _, option := range []bool{false, true} {
		t.Run("force-irmap "+strconv.FormatBool(option), func(t *testing.T) {
			args := []string{"install"}
			if option {
				args = append(args, "--force-irmap")
			}
			succeeds(t, args...)
			if text := doctor(t); strings.Contains(text, "sets force-irmap") != option {
				t.Errorf("doctor:\n%s", text)
			}
			c := lab.Start(t, lab.Options{})
			c.Run(t, "sh", "-c", "mkdir -p /usr/share/zoneinfo/Etc && echo TZ >/usr/share/zoneinfo/Etc/Lab && ln -sf /usr/share/zoneinfo/Etc/Lab /etc/localtime && systemctl daemon-reexec")
			c.Populate(t)
			s := &snapshot{}
			if said := inspected(t, c); strings.Contains(said, foretold) == option {
				t.Errorf("inspect says %s", said)
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
				t.Errorf("the program did not say why:\n%s", log)
			}
		})
	}
}

// copyInPlace replaces a folder by a copy of itself.
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
	if said := inspected(t, c); !strings.Contains(said, c.ID) || !strings.Contains(said, "no cgroup namespace") {
		t.Error("not foretold")
	}
}
