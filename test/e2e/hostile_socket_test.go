package e2e

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// fakeSockets are files that replace systemd's socket, with the reason in the program's
// report.
var fakeSockets = []struct {
	name, script, listen, reason string
}{
	{name: "hangs", listen: "deaf", reason: "not the container's PID 1"},
	{name: "answers garbage", listen: "garbage", reason: "not the container's PID 1"},
	{name: "endless data", listen: "endless", reason: "not the container's PID 1"},
	{name: "other units", listen: "names", reason: "not the container's PID 1"},
	{name: "link to the host's path", script: "ln -s /proc/1/root/run/systemd/private private", reason: "too many levels of symbolic links"},
	{name: "link out of the root", script: "ln -s ../../../../../../../run/systemd/private private", reason: "too many levels of symbolic links"},
	{name: "link to the real one", script: "ln -s private.real private", reason: "too many levels of symbolic links"},
	{name: "regular file", script: "echo no >private", reason: "connection refused"},
	{name: "fifo", script: "mkfifo private", reason: "connection refused"},
	{name: "directory", script: "mkdir private", reason: "connection refused"},
	{name: "nothing", reason: "no such file"},
}

// TestHostileSocket replaces the socket of systemd. Nothing is changed then.
func TestHostileSocket(t *testing.T) {
	s := hostileCheckpoint(t)
	r := restoreStale(t, s)
	node := readNode(t)
	mounts := withoutDaemon(r.MountTable(t))
	r.Run(t, "mv", lab.PrivateSocket, lab.PrivateSocket+".real")
	for _, fake := range fakeSockets {
		t.Run(fake.name, func(t *testing.T) {
			if fake.listen != "" {
				r.Run(t, "touch", lab.PrivateSocket)
				r.Attack(t, lab.RoleProgram, "listen", fake.listen)
			} else {
				r.Run(t, "sh", "-ec", "cd /run/systemd; "+fake.script)
			}
			result, report := runAttacked(t, r.PID)
			checkLeft(t, result, report, fake.reason)
			r.Run(t, "rm", "-rf", lab.PrivateSocket)
		})
	}
	t.Run("a process of the host listens", func(t *testing.T) {
		asked := hostListens(t, inContainer(r.Container, lab.PrivateSocket))
		result, report := runAttacked(t, r.PID)
		checkLeft(t, result, report, "not the container's PID 1")
		if text := asked(); text != "" {
			t.Errorf("a process outside of the container was sent %q", text)
		}
		r.Run(t, "rm", "-f", lab.PrivateSocket)
	})
	if now := withoutDaemon(r.MountTable(t)); now != mounts {
		t.Errorf("mounts:\n%s\nbefore:\n%s", now, mounts)
	}
	node.checkUnchanged(t)
	r.Run(t, "mv", lab.PrivateSocket+".real", lab.PrivateSocket)
	checkCure(t, repairByHand(t, r), "reexecuted")
	r.CheckAnswers(t, lab.Accesses)
	r.CheckUntouched(t)
}

// hostListens makes the test itself listen on a socket inside the container, and returns
// the received data.
func hostListens(t *testing.T, path string) func() string {
	t.Helper()
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var came strings.Builder
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 4096)
			n, _ := conn.Read(b)
			came.Write(b[:n])
			conn.Close()
		}
	}()
	stop := func() string {
		listener.Close()
		<-done
		return came.String()
	}
	t.Cleanup(func() { stop() })
	return stop
}

// TestHostileSystemd has a PID 1 with the name systemd that owns the socket and the pipe,
// and gives false answers. They affect only the container itself.
func TestHostileSystemd(t *testing.T) {
	requireHook(t)
	// The styles that keep a run until its deadline, and the others, each in a container
	// of their own.
	slow := []string{"hangs-later", "endless-later"}
	others := slices.DeleteFunc(slices.Clone(lab.BusStyles), func(style string) bool { return slices.Contains(slow, style) })
	containers := make(map[string]*lab.Container)
	const restart = "names, restart" // which accepts a restart
	groups := map[string][]string{slow[0]: slow[:1], slow[1]: slow[1:], "others": others, restart: nil}
	for name := range groups {
		s := &snapshot{Checkpoint: lab.StartHostile(t, "hangs", "/mnt/fake").Checkpoint(t)}
		containers[name] = restoreStale(t, s).Container // the program does not connect to one that was not restored
	}
	node := readNode(t)
	t.Run("styles", func(t *testing.T) {
		for name, styles := range groups {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				for _, style := range styles {
					t.Run(style, func(t *testing.T) { attackByStyle(t, containers[name], style) })
				}
				if name == restart {
					attackRestart(t, containers[name])
				}
			})
		}
	})
	node.checkUnchanged(t)
	for _, c := range containers {
		c.CheckUntouched(t)
	}
}

func attackRestart(t *testing.T, c *lab.Container) {
	t.Helper()
	c.SetStyle(t, "names")
	result, report := runAttacked(t, c.PID, "--strategy", "restart")
	checkLeft(t, result, report, "")
	checkMessages(t, readFile(t, filepath.Join(c.Bundle, "rootfs", lab.HostileLog)))
}

func attackByStyle(t *testing.T, c *lab.Container, style string) {
	c.SetStyle(t, style)
	mounts := c.MountTable(t)
	result, report := runAttacked(t, c.PID)
	checkLeft(t, result, report, "")
	if now := c.MountTable(t); now != mounts {
		t.Errorf("mounts:\n%s\nbefore:\n%s", now, mounts)
	}
}

// checkMessages checks the messages to a systemd that answers with other units' names: jobs
// are only for unit names that the program made from the path.
func checkMessages(t *testing.T, log string) {
	t.Helper()
	jobs := 0
	for line := range strings.Lines(log) {
		if !strings.HasPrefix(line, "RestartUnit") && !strings.HasPrefix(line, "StartUnit") && !strings.HasPrefix(line, "ResetFailedUnit") {
			continue
		}
		jobs++
		if !strings.Contains(line, `"`+lab.UnitName("/mnt/fake", "automount")+`"`) {
			t.Errorf("request for another unit: %s", line)
		}
	}
	if jobs == 0 {
		t.Errorf("no job was requested:\n%s", log)
	}
}

// TestHostileSystemdRestored restores such a container with the program as
// CRIU's action script: the restore works, in time.
func TestHostileSystemdRestored(t *testing.T) {
	requireHook(t)
	c := lab.StartHostile(t, "hangs", "/mnt/fake")
	s := &snapshot{Checkpoint: c.Checkpoint(t)}
	for _, style := range []string{"hangs-later", "dies-1"} {
		t.Run(style, func(t *testing.T) {
			c.SetStyle(t, style)
			node := readNode(t)
			r := restoreWithHook(t, s, lab.RestoreOptions{})
			if r.Took > hostileLimit+hostileLimit/8 {
				t.Errorf("the restore took %s", r.Took)
			}
			r.Kill(t)
			node.checkUnchanged(t)
		})
	}
}

// TestHostileSystemdDies has a PID 1 that ends at each message, and with it the container
// during the repair.
func TestHostileSystemdDies(t *testing.T) {
	requireHook(t)
	c := lab.StartHostile(t, "types", "/mnt/fake")
	s := &snapshot{Checkpoint: c.Checkpoint(t)}
	node := readNode(t)
	alive := 0
	const most = 40
	for n := 0; alive == 0 && n < most; n++ {
		c.SetStyle(t, "dies-"+strconv.Itoa(n))
		r := restoreStale(t, s)
		before := readFile(t, "/proc/self/mountinfo")
		result, _ := runAttacked(t, r.PID, "--strategy", "restart")
		if result.Status != 1 {
			t.Errorf("it ended at message %d: exit status %d: %s", n+1, result.Status, result.Stderr)
		}
		if now := readFile(t, "/proc/self/mountinfo"); now != before {
			t.Errorf("it ended at message %d: mounts of the node:\n%s\nbefore:\n%s", n+1, now, before)
		}
		if survives(r.PID) {
			alive++ // there were fewer messages
		}
		r.Kill(t)
	}
	if alive == 0 {
		t.Errorf("it ended at each of %d messages", most)
	}
	node.checkUnchanged(t)
}

// survives reports whether a process still runs a short time after the run whose message
// may have ended it.
func survives(pid int) bool {
	for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if _, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe"); err != nil {
			return false
		}
	}
	return true
}
