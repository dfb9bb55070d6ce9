package e2e

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

const (
	inner        = "/mnt/inner" // only the inner container has it
	startNested  = "/srv/start-nested"
	nestedScript = `set -e
mount --bind /nested /nested
cd /nested
mount -t proc proc proc
mount --rbind /dev dev
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs tmpfs tmp
mkdir -p .old
pivot_root . .old
umount --lazy /.old
exec env container=lab /sbin/init
`
)

// nestedUnits are the units of the outer container that start the inner one, and the
// automounts of the inner one: one has a path that the outer one has as well.
func nestedUnits() (outer, within map[string]string) {
	units := "/etc/systemd/system/"
	outer = map[string]string{
		startNested: nestedScript,
		units + "nested.service": "[Service]\nDelegate=yes\nExecStart=/usr/bin/unshare --mount --propagation private --pid --fork --kill-child" +
			" --uts --ipc --cgroup /bin/sh " + startNested + "\n",
	}
	within = map[string]string{
		units + "multi-user.target.d/automounts.conf": "[Unit]\nWants=" + lab.UnitName(inner, "automount") + " " + lab.UnitName(lab.Idle, "automount") + "\n",
	}
	for _, path := range []string{inner, lab.Idle} {
		within[units+lab.UnitName(path, "automount")] = "[Automount]\nWhere=" + path + "\n"
		within[units+lab.UnitName(path, "mount")] = "[Mount]\nWhat=tmpfs\nWhere=" + path + "\nType=tmpfs\n"
	}
	return outer, within
}

// TestContainerInContainer has a systemd in a container inside the container. Its mounts
// are reported under its own namespace, and it is re-executed itself.
func TestContainerInContainer(t *testing.T) {
	requireHook(t)
	outer, within := nestedUnits()
	c := lab.Start(t, lab.Options{Files: outer})
	lab.AddRoot(t, c, "nested", lab.Options{Plain: true, Files: within})
	c.Populate(t)
	c.Run(t, "systemctl", "start", "nested.service")
	nested := &lab.Container{ID: c.ID + "-nested"}
	deadline := time.Now().Add(20 * time.Second)
	for {
		nested.PID = nestedSystemd(t, c.PID)
		if nested.PID > 0 && strings.Contains(systemctlIn(nested, "is-active", lab.UnitName(inner, "automount")), "active") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the inner systemd (process %d) has not started:\n%s", nested.PID, c.Run(t, "systemctl", "status", "--no-pager", "nested.service"))
		}
		time.Sleep(50 * time.Millisecond)
	}
	c.Settle(t)
	nested.Settle(t)
	units, nestedUnits := c.Units(t), nested.Units(t)
	namespace := nsenter.MountNamespaceOf(nested.PID).Inode
	for _, command := range []string{"inspect", "repair"} {
		report := runOn(t, c, command)
		found := map[string]bool{}
		for _, m := range report.Mounts {
			if m.Outcome != "healthy" {
				t.Errorf("%s: %s in %d: %s (%s)", command, m.Path, m.MountNamespace, m.Outcome, m.Reason)
			}
			if m.MountNamespace == namespace {
				found[m.Path] = true
				if m.Master.Kind != "systemd" || m.Master.PID != nested.PID || m.Master.Unit != lab.UnitName(m.Path, "automount") {
					t.Errorf("%s: %s: master %+v, want systemd, process %d", command, m.Path, m.Master, nested.PID)
				}
			} else if m.Path == inner {
				t.Errorf("%s: %s in mount namespace %d, want %d", command, m.Path, m.MountNamespace, namespace)
			}
		}
		if !found[inner] || !found[lab.Idle] {
			t.Errorf("%s: of the inner container: %v", command, found)
		}
	}
	for _, change := range append(changedUnits(units, c.Units(t)), changedUnits(nestedUnits, nested.Units(t))...) {
		if !strings.Contains(change, ": not loaded, now") { // mounts that systemd had not seen yet
			t.Error(change)
		}
	}
	if o := nested.Try(t, lab.AnswerLimit, "stat", "--file-system", "--format=%T", inner+"/."); !lab.UncoveredAnswers(o) {
		t.Errorf("%s: %s; want a tmpfs", inner, o)
	}
	// If a CRIU can dump it, this test should restore it.
	if _, err := c.TryCheckpoint(t); err == nil || !strings.Contains(err.Error(), "Can't dump nested") {
		t.Errorf("CRIU dumps a container in a container: %v", err)
	}
}

// systemctlIn runs systemctl with the systemd of a container.
func systemctlIn(c *lab.Container, args ...string) string {
	out, _ := c.Command(append([]string{"systemctl"}, args...)...).CombinedOutput()
	return string(out)
}

// nestedSystemd returns the pid of the systemd in a pid namespace below that of a
// container, 0 if there is none.
func nestedSystemd(t *testing.T, pid int) int {
	t.Helper()
	p, err := nsenter.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	own, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	list, err := p.Descendants()
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range list {
		dir := "/proc/" + strconv.Itoa(pid)
		comm, _ := os.ReadFile(dir + "/comm")
		if namespace, err := os.Readlink(dir + "/ns/pid"); err == nil && namespace != own && string(comm) == "systemd\n" {
			return pid
		}
	}
	return 0
}
