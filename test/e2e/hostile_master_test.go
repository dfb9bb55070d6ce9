package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// impostors are processes that hold the pipe of a mount of their own, and call
// themselves what they are not.
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

// TestHostileImpostors: whoever looks like a master is left alone, with his
// mounts, and the others are repaired.
func TestHostileImpostors(t *testing.T) {
	s := hostileCheckpoint(t)
	r := restoreStale(t, s)
	node := lookAtNode(t)
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
	result, report := attacked(t, r.PID)
	if result.Status != 3 {
		t.Errorf("exit status %d, want 3", result.Status)
	}
	left := 0
	for _, m := range report.Mounts {
		switch ours := strings.HasPrefix(m.Path, "/impostor/"); {
		case ours && m.Outcome != "unrepaired" && m.Outcome != "healthy":
			t.Errorf("%s: %s (%s)", m.Path, m.Outcome, m.Reason)
		case ours:
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
			continue // its systemd ends what is left in a service that it starts anew
		}
		if err := syscall.Kill(pid, 0); err != nil {
			t.Errorf("%s: process %d: %v", name, pid, err)
		}
	}
	for _, name := range []string{"private-mounts.service", "holder.service"} {
		if now := r.Units(t)[name]; now != units[name] {
			t.Errorf("%s: %+v, before %+v", name, now, units[name])
		}
	}
	r.CheckAnswers(t, lab.Accesses)
	r.CheckUntouched(t)
	node.checkUnchanged(t)
}

// witness takes the place of automount's program and writes down what it was
// given, before it does the same as that.
const witness = `#!/bin/bash
{
	grep -E '^(Uid|Gid|Cap[A-Za-z]*|NoNewPrivs|Seccomp):' /proc/self/status
	readlink /proc/self/ns/{mnt,pid,ipc,uts,net,cgroup,user}
	cat /proc/self/cgroup
} >/witness.rights
tr '\0' '\n' </proc/self/environ >/witness.environ
ls -l /proc/self/fd >/witness.files
exec -a "$0" /opt/real/automount "$@"
`

// TestHostileDaemonProgram replaces automount's program while the daemon runs.
// The new file is started, by the container's own systemd: with the rights that
// the daemon has had, and nothing of the program's.
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
	node := lookAtNode(t)
	daemon, err := strconv.Atoi(r.Units(t)["autofs.service"].MainPID)
	if err != nil {
		t.Fatal(err)
	}
	old := r.HostPID(t, strconv.Itoa(daemon))
	want := rights(t, old)
	t.Setenv("HOSTILE_CANARY", "of the host")
	_, report := attacked(t, r.PID)
	t.Log(outcomes(report))
	got := readFile(t, filepath.Join(s.Root(), "witness.rights"))
	for _, line := range want {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("the new daemon has not %q, as the old one had:\n%s", line, got)
		}
	}
	if environ := readFile(t, filepath.Join(s.Root(), "witness.environ")); strings.Contains(environ, "HOSTILE_CANARY") || strings.Contains(environ, "LAB_") {
		t.Errorf("its environment:\n%s", environ)
	}
	for line := range strings.Lines(readFile(t, filepath.Join(s.Root(), "witness.files"))) {
		_, target, isLink := strings.Cut(line, " -> ")
		target = strings.TrimSpace(target)
		if isLink && !strings.HasPrefix(target, "/dev/null") && !strings.HasPrefix(target, "/witness") && !strings.HasPrefix(target, "/proc/") &&
			!strings.Contains(target, "/automount") && !strings.HasPrefix(target, "socket:") {
			t.Errorf("it has a file open: %s", line)
		}
	}
	node.checkUnchanged(t)
	r.CheckUntouched(t)
}

// rights are what a process may do and where it is.
func rights(t *testing.T, pid int) []string {
	t.Helper()
	var list []string
	for line := range strings.Lines(readFile(t, fmt.Sprintf("/proc/%d/status", pid))) {
		name, _, _ := strings.Cut(line, ":")
		if strings.HasPrefix(name, "Cap") || name == "Uid" || name == "Gid" || name == "NoNewPrivs" || name == "Seccomp" {
			list = append(list, strings.TrimSuffix(line, "\n"))
		}
	}
	for _, kind := range []string{"mnt", "pid", "ipc", "uts", "net", "cgroup", "user"} {
		link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, link)
	}
	return list
}

// TestHostileDaemonDies ends automount at moments all over the repair. The run
// ends in time, and the next one finds a container that can be repaired.
func TestHostileDaemonDies(t *testing.T) {
	s := hostileCheckpoint(t)
	const steps = 12
	for i := range steps {
		r := restoreStale(t, s)
		node := lookAtNode(t)
		daemon := r.HostPID(t, r.Units(t)["autofs.service"].MainPID)
		time.AfterFunc(time.Duration(i)*7*time.Millisecond, func() { _ = syscall.Kill(daemon, syscall.SIGKILL) })
		result, report := attacked(t, r.PID)
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
