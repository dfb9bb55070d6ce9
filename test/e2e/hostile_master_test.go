package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// impostors are processes that have the pipe of their own mount open, under false names.
var impostors = map[string][]string{
	"systemd, by prctl":      {lab.RoleProgram, "hold-pipe", "systemd"},
	"automount, by prctl":    {lab.RoleProgram, "hold-pipe", "automount"},
	"automount, by its file": {"sh", "-c", `cp "$0" /opt/automount; exec -a lab-role /opt/automount "$@"`, lab.RoleProgram, "hold-pipe", "x"},
	"automount, in the service of another": {
		"sh", "-ec",
		`echo $$ >/sys/fs/cgroup/system.slice/private-mounts.service/cgroup.procs; exec "$0" "$@"`, lab.RoleProgram, "hold-pipe", "automount",
	},
	"automount, in automount's service": {
		"sh", "-ec",
		`echo $$ >/sys/fs/cgroup/system.slice/autofs.service/cgroup.procs; exec "$0" "$@"`, lab.RoleProgram, "hold-pipe", "automount",
	},
}

// TestHostileImpostors: a process that looks like a master is not changed, nor are its
// mounts; the other mounts are repaired.
func TestHostileImpostors(t *testing.T) {
	s := hostileCheckpoint(t)
	r := restoreStale(t, s)
	node := readNode(t)
	pids := map[string]int{}
	number := 0
	for name, args := range impostors {
		number++
		args = append(append([]string{}, args...), "/impostor/"+strconv.Itoa(number))
		if args[0] == "sh" {
			args[0] = "bash"
		}
		pids[name] = r.Attack(t, args...).PID
	}
	units := r.Units(t)
	result, report := runAttacked(t, r.PID)
	if result.Status != 3 {
		t.Errorf("exit status %d, want 3", result.Status)
	}
	left := 0
	for _, m := range report.Mounts {
		switch impostor := strings.HasPrefix(m.Path, "/impostor/"); {
		case impostor && m.Outcome != "unrepaired" && m.Outcome != "healthy":
			t.Errorf("%s: %s (%s)", m.Path, m.Outcome, m.Reason)
		case impostor:
			left++
			t.Logf("%s, %s: %s", m.Path, m.Master.Kind, m.Reason)
		case m.Outcome == "unrepaired":
			t.Errorf("%s: %s", m.Path, m.Reason)
		}
	}
	if left != len(impostors) {
		t.Errorf("%d mounts of impostors are left, want %d", left, len(impostors))
	}
	for name, pid := range pids {
		if strings.Contains(name, "automount's service") {
			continue // its systemd kills the remaining processes of a service that it restarts
		}
		if err := syscall.Kill(pid, 0); err != nil {
			t.Errorf("%s: process %d: %v", name, pid, err)
		}
	}
	for _, name := range []string{"private-mounts.service", "worker.service"} {
		if now := r.Units(t)[name]; now != units[name] {
			t.Errorf("%s: %+v, before %+v", name, now, units[name])
		}
	}
	r.CheckAnswers(t, lab.Accesses)
	r.CheckUntouched(t)
	node.checkUnchanged(t)
}

// witness replaces automount's program and writes a file when it is started.
const witness = `#!/bin/bash
touch /witness
exec -a "$0" /opt/real/automount "$@"
`

// TestHostileDaemonProgram replaces automount's program while the daemon runs. The
// new file is not started: the daemon reloads.
func TestHostileDaemonProgram(t *testing.T) {
	s := hostileCheckpoint(t)
	r := restoreStale(t, s)
	root := filepath.Join(s.Root(), "usr/sbin")
	r.Run(t, "sh", "-ec", "mkdir -p /opt/real; mv /usr/sbin/automount /opt/real/automount")
	t.Cleanup(func() {
		if err := os.Rename(filepath.Join(s.Root(), "opt/real/automount"), root+"/automount"); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(root+"/automount", []byte(witness), 0o755); err != nil {
		t.Fatal(err)
	}
	node := readNode(t)
	_, report := runAttacked(t, r.PID)
	t.Log(outcomes(report))
	if _, err := os.Stat(filepath.Join(s.Root(), "witness")); err == nil {
		t.Error("the file in the place of the daemon's program was started")
	}
	for _, m := range report.Mounts {
		if m.Master.Kind == "automount" && m.Type == "direct" && m.Outcome != "reloaded" {
			t.Errorf("report: %s: %s (%s), want reloaded", m.Path, m.Outcome, m.Reason)
		}
	}
	node.checkUnchanged(t)
	r.CheckUntouched(t)
}

// TestHostileDaemonDies kills automount at many points of the repair. The run ends in
// time, and the next one can repair the container.
func TestHostileDaemonDies(t *testing.T) {
	s := hostileCheckpoint(t)
	const steps = 12
	for i := range steps {
		r := restoreStale(t, s)
		node := readNode(t)
		daemon := r.HostPID(t, r.Units(t)["autofs.service"].MainPID)
		time.AfterFunc(time.Duration(i)*7*time.Millisecond, func() { _ = syscall.Kill(daemon, syscall.SIGKILL) })
		result, report := runAttacked(t, r.PID)
		for _, m := range report.Mounts {
			if m.Master.Kind == "systemd" && m.Outcome == "unrepaired" {
				t.Errorf("%d ms: %s: %s", i*7, m.Path, m.Reason)
			}
		}
		if result.Status != 0 && result.Status != 3 {
			t.Errorf("%d ms: exit status %d: %s", i*7, result.Status, result.Stderr)
		}
		r.CheckUntouched(t)
		r.CheckAnswers(t, systemdAccesses())
		node.checkUnchanged(t)
		r.Kill(t)
	}
}
