package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// reaper reaps children, as a small init does.
const reaper = "\nwhile :; do wait; sleep 0.1; done\n"

// takeAutomount checkpoints a container without systemd.
func takeAutomount(t *testing.T, shell string, options lab.Options) *snapshot {
	t.Helper()
	return &snapshot{Checkpoint: lab.StartAutomount(t, shell, options).Checkpoint(t)}
}

// TestReloaded: a daemon keeps its process and serves its direct maps again, however it
// was started: no service manager would restart it.
func TestReloaded(t *testing.T) {
	requireHook(t)
	for name, c := range map[string]struct {
		shell   string
		options lab.Options
	}{
		"daemon":        {shell: "automount" + reaper},
		"foreground":    {shell: "setsid automount --foreground"},
		"of a loop":     {shell: "(while :; do setsid automount -f; sleep 0.2; done) &" + reaper},
		"first process": {shell: "exec automount -f"},
		"under seccomp": {shell: "automount" + reaper, options: lab.Options{Seccomp: &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow,
			Syscalls:      []specs.LinuxSyscall{{Names: []string{"acct", "swapon"}, Action: specs.ActErrno}},
		}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := takeAutomount(t, c.shell, c.options)
			r := restoreWithHook(t, s, lab.RestoreOptions{})
			checkReloaded(t, r.Container, r.ReadReport(t))
			r.Kill(t)

			r = restoreStale(t, s)
			daemon := startOf(t, r.Daemon(t))
			result := lab.RunHook(t, nil, nil, "repair", "--json", strconv.Itoa(r.PID))
			if result.Status != 0 {
				t.Errorf("status %d: %s", result.Status, result.Stderr)
			}
			checkReloaded(t, r.Container, lab.ParseReport(t, result.Stdout))
			if now := startOf(t, r.Daemon(t)); now != daemon {
				t.Errorf("the daemon is process %s, was %s", now, daemon)
			}
			checkAgain(t, r.Container)
		})
	}
}

// TestReloadedAmongOthers has an indirect mount at a longer path than the parking mounts:
// it belongs to the same daemon and stays.
func TestReloadedAmongOthers(t *testing.T) {
	requireHook(t)
	const long = "/srv/quite/a/long/path"
	s := takeAutomount(t, "automount"+reaper, lab.Options{Files: map[string]string{
		"/etc/auto.master": "/- /etc/auto.direct --timeout=3600\n" + lab.Indirect + " /etc/auto.indirect --timeout=3600\n" + long + " /etc/auto.indirect --timeout=3600\n",
	}})
	r := restoreWithHook(t, s, lab.RestoreOptions{})
	for _, m := range r.ReadReport(t).Mounts {
		want := "reloaded"
		if m.Path == long || m.Path == lab.Indirect {
			want = "healthy"
		}
		if m.Outcome != want {
			t.Errorf("report: %s: %s (%s), want %s", m.Path, m.Outcome, m.Reason, want)
		}
	}
	if stack := lab.Stack(t, r.PID, long); stack != "autofs" {
		t.Errorf("%s: %s, want one autofs", long, stack)
	}
	r.CheckAnswers(t, lab.DaemonAccesses)
}

// TestReloadedWithoutMap: without a map no mount is lost, the stale triggers stay, and
// the next repair works when the map is back. Without its master map the daemon would
// unmount each mount: it gets no SIGHUP.
func TestReloadedWithoutMap(t *testing.T) {
	requireHook(t)
	for name, file := range map[string]string{"direct": "etc/auto.direct", "master": "etc/auto.master"} {
		t.Run(name, func(t *testing.T) { checkWithoutMap(t, file) })
	}
}

func checkWithoutMap(t *testing.T, file string) {
	t.Helper()
	s := takeAutomount(t, "automount"+reaper, lab.Options{})
	file = filepath.Join(s.Root(), file)
	if err := os.Rename(file, file+".away"); err != nil {
		t.Fatal(err)
	}
	r := restoreWithHook(t, s, lab.RestoreOptions{})
	daemon := startOf(t, r.Daemon(t))
	for _, m := range r.ReadReport(t).Mounts {
		want := "unrepaired"
		if m.Path == lab.Indirect {
			want = "healthy"
		}
		if m.Outcome != want || want == "unrepaired" && !strings.Contains(m.Reason, "map") {
			t.Errorf("report: %s: %s (%s), want %s", m.Path, m.Outcome, m.Reason, want)
		}
	}
	r.CheckAnswers(t, lab.DaemonAccesses[2:])
	for _, path := range []string{lab.Direct, lab.Direct2} {
		if stack := lab.Stack(t, r.PID, path); stack != "autofs" {
			t.Errorf("%s: %s, want one autofs", path, stack)
		}
	}
	if err := os.Rename(file+".away", file); err != nil {
		t.Fatal(err)
	}
	result := lab.RunHook(t, nil, nil, "repair", "--json", strconv.Itoa(r.PID))
	checkReloaded(t, r.Container, lab.ParseReport(t, result.Stdout))
	if now := startOf(t, r.Daemon(t)); now != daemon {
		t.Errorf("the daemon is process %s, was %s", now, daemon)
	}
}

// TestDaemonNeverRestored: a daemon that was started here knows its mounts.
func TestDaemonNeverRestored(t *testing.T) {
	requireHook(t)
	checkAgain(t, lab.StartAutomount(t, "automount"+reaper, lab.Options{}))
}

func checkReloaded(t *testing.T, c *lab.Container, report lab.Report) {
	t.Helper()
	t.Logf("repaired in %.1f ms", report.DurationMS)
	if report.Outcome != "repaired" || len(report.Mounts) != 3 {
		t.Errorf("report: outcome %q with %d mounts, want repaired with 3", report.Outcome, len(report.Mounts))
	}
	daemon := c.Daemon(t)
	for _, m := range report.Mounts {
		want := "reloaded"
		if m.Path == lab.Indirect {
			want = "healthy"
		}
		if m.Outcome != want || m.Master.PID != daemon {
			t.Errorf("report: %s: %s (%s), master %d; want %s, %d", m.Path, m.Outcome, m.Reason, m.Master.PID, want, daemon)
		}
	}
	for _, path := range []string{lab.Direct, lab.Direct2, lab.Indirect} {
		if stack := lab.Stack(t, c.PID, path); stack != "autofs" {
			t.Errorf("%s: %s, want one autofs", path, stack)
		}
	}
	c.CheckAnswers(t, lab.DaemonAccesses)
	checkNoWaiters(t, c)
	lab.WaitNoneRunning(t, helperLimit)
}

// checkAgain: a second repair does not change the daemon's mounts.
func checkAgain(t *testing.T, c *lab.Container) {
	t.Helper()
	before := lab.Autofs(t, c.PID)
	result := lab.RunHook(t, nil, nil, "repair", "--json", strconv.Itoa(c.PID))
	if report := lab.ParseReport(t, result.Stdout); report.Outcome != "nothing-to-do" || result.Status != 0 {
		t.Errorf("a second repair: %q, status %d: %s", report.Outcome, result.Status, result.Stderr)
	}
	for path, now := range lab.Autofs(t, c.PID) {
		if was := before[path]; was == nil || was.ID != now.ID {
			t.Errorf("a second repair replaced the mount at %s", path)
		}
	}
}

// startOf returns the pid and start time of a process, which are unique until a reboot.
func startOf(t *testing.T, pid int) string {
	t.Helper()
	stat := readFile(t, "/proc/"+strconv.Itoa(pid)+"/stat")
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')'):])
	return strconv.Itoa(pid) + " started at " + fields[20]
}

// TestOffsetsOfBusyEntry: a map entry with several mounts is not changed while a process
// uses it, and works again with the next repair after that.
func TestOffsetsOfBusyEntry(t *testing.T) {
	requireHook(t)
	const user = "/srv/user.pid"
	shell := "automount" + `
while ! grep -q ' /indirect ' /proc/self/mountinfo; do sleep 0.1; done
(cd /indirect/multi && exec sleep 1000) & echo $! >` + user + reaper
	s := takeAutomount(t, shell, lab.Options{Files: treeFiles()})
	r := restoreWithHook(t, s, lab.RestoreOptions{})
	daemon := startOf(t, r.Daemon(t))
	sub := "/indirect/multi/sub"
	for _, m := range r.ReadReport(t).Mounts {
		if m.Type == "offset" && (m.Outcome != "unrepaired" || !strings.Contains(m.Reason, `("sleep")`)) {
			t.Errorf("report: %s: %s (%s), want unrepaired because of sleep", m.Path, m.Outcome, m.Reason)
		}
	}
	if stack := lab.Stack(t, r.PID, sub); stack != "autofs" {
		t.Errorf("%s: %s, want one autofs", sub, stack)
	}
	waiting := treeAccesses([]string{sub, sub})
	ended := startAccesses(t, r, waiting)
	r.Run(t, "sh", "-c", "kill $(cat "+user+"); while kill -0 $(cat "+user+"); do sleep 0.1; done 2>/dev/null")
	result := lab.RunHook(t, nil, nil, "repair", "--json", strconv.Itoa(r.PID))
	t.Logf("%s", result.Stderr)
	for _, m := range lab.ParseReport(t, result.Stdout).Mounts {
		if m.Type == "offset" && m.Outcome != "reloaded" {
			t.Errorf("report: %s: %s (%s), want reloaded", m.Path, m.Outcome, m.Reason)
		}
	}
	checkAnswered(t, waiting, <-ended)
	r.CheckAnswers(t, treeAccesses([]string{"/indirect/multi", sub, "/indirect/multi/other"}))
	checkNoWaiters(t, r.Container)
	if now := startOf(t, r.Daemon(t)); now != daemon {
		t.Errorf("the daemon is process %s, was %s", now, daemon)
	}
}
