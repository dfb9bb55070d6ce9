package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// reaper is what a small init does: it waits for whoever ends.
const reaper = "\nwhile :; do wait; sleep 0.1; done\n"

// takeAutomount checkpoints a container without systemd.
func takeAutomount(t *testing.T, shell string, options lab.Options) *snapshot {
	t.Helper()
	return &snapshot{Checkpoint: lab.StartAutomount(t, shell, options).Checkpoint(t)}
}

// TestRespawnedWithoutSystemd: a daemon that an entrypoint has started is
// replaced by one that has the same, in every way the kernel can tell.
func TestRespawnedWithoutSystemd(t *testing.T) {
	requireHook(t)
	const changes = `ulimit -c 0; ulimit -S -s 4096; umask 0037; echo 77 >/proc/self/oom_score_adj
export SECRET='of the
entrypoint'; cd /var/lib; automount --timeout 3000
`
	s := takeAutomount(t, changes+reaper, lab.Options{})
	t.Run("later", func(t *testing.T) {
		r := restoreStale(t, s)
		old := kept(t, r.Daemon(t))
		result := lab.RunHook(t, nil, nil, "repair", "--json", strconv.Itoa(r.PID))
		checkRespawned(t, r.Container, old, lab.ParseReport(t, result.Stdout))
		if result.Status != 0 {
			t.Errorf("status %d: %s", result.Status, result.Stderr)
		}
		checkAgain(t, r.Container)
		r.Kill(t)
	})
	t.Run("as action script", func(t *testing.T) {
		stale := restoreStale(t, s)
		old := kept(t, stale.Daemon(t))
		stale.Kill(t)
		r := restoreWithHook(t, s, lab.RestoreOptions{})
		checkRespawned(t, r.Container, old, r.ReadReport(t))
		checkAgain(t, r.Container)
	})
}

// TestRespawnedUnderSeccomp: the new daemon is under the filter of the old one.
func TestRespawnedUnderSeccomp(t *testing.T) {
	requireHook(t)
	s := takeAutomount(t, "automount"+reaper, lab.Options{Seccomp: &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow,
		Syscalls:      []specs.LinuxSyscall{{Names: []string{"acct", "swapon"}, Action: specs.ActErrno}},
	}})
	stale := restoreStale(t, s)
	old := kept(t, stale.Daemon(t))
	stale.Kill(t)
	if !strings.Contains(old.status, "Seccomp:\t2\n") {
		t.Fatalf("the restored daemon is under no seccomp filter:\n%s", old.status)
	}
	r := restoreWithHook(t, s, lab.RestoreOptions{})
	checkRespawned(t, r.Container, old, r.ReadReport(t))
}

// TestForegroundDaemonLeftAlone: the parent of a daemon in the foreground may
// end with it. Only who knows that it starts the daemon again can say so.
func TestForegroundDaemonLeftAlone(t *testing.T) {
	requireHook(t)
	for name, shell := range map[string]string{
		"of the first process": "setsid automount --foreground",
		"of a loop":            "(while :; do setsid automount -f; sleep 0.2; done) &" + reaper,
	} {
		t.Run(name, func(t *testing.T) {
			s := takeAutomount(t, shell, lab.Options{})
			r := restoreWithHook(t, s, lab.RestoreOptions{})
			daemon := r.Daemon(t)
			reason := fmt.Sprintf("\"autofs-restore-hook repair %d --strategy restart\"", r.PID)
			checkUnrepaired(t, r.ReadReport(t), reason)
			r.CheckAnswers(t, lab.DaemonAccesses[2:])
			if now := r.Daemon(t); now != daemon {
				t.Errorf("the daemon is process %d, was %d", now, daemon)
			}
			if name != "of a loop" {
				return
			}
			old := kept(t, daemon)
			result := lab.RunHook(t, nil, nil, "repair", "--json", "--strategy", "restart", strconv.Itoa(r.PID))
			report := lab.ParseReport(t, result.Stdout)
			checkRespawned(t, r.Container, old, report)
			if parent, want := statusLine(t, r.Daemon(t), "PPid"), line(old.status, "PPid"); parent != want {
				t.Errorf("the new daemon's parent is %s, want the loop, %s", parent, want)
			}
		})
	}
}

// TestRespawnKilled kills the program at several moments. The next run finishes
// what it began, also where the old daemon is gone and no new one runs, and where
// the new one is just taking the mounts over: it begins at once.
func TestRespawnKilled(t *testing.T) {
	requireHook(t)
	s := takeAutomount(t, "automount"+reaper, lab.Options{})
	gone := 0
	for after := 20 * time.Millisecond; after <= 180*time.Millisecond; after += 10 * time.Millisecond {
		r := restoreStale(t, s)
		old := kept(t, r.Daemon(t))
		cmd := exec.Command(lab.Hook(), "repair", strconv.Itoa(r.PID))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(after)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		left := len(r.Daemons(t))
		if left == 0 {
			gone++
		}
		result := lab.RunHook(t, nil, nil, "repair", "--json", strconv.Itoa(r.PID))
		t.Logf("killed after %s with %d daemons left: %s", after, left, result.Stderr)
		if result.Status != 0 {
			t.Errorf("status %d", result.Status)
		}
		r.CheckAnswers(t, lab.DaemonAccesses)
		checkNoWaiters(t, r.Container)
		old.compare(t, kept(t, r.Daemon(t)))
		checkAgain(t, r.Container)
		lab.WaitNoneRunning(t, holderLimit)
		r.Kill(t)
	}
	if gone == 0 {
		t.Error("at no moment was the daemon gone")
	}
}

// TestDaemonNeverRestored: a daemon that was never restored knows its mounts.
func TestDaemonNeverRestored(t *testing.T) {
	requireHook(t)
	checkAgain(t, lab.StartAutomount(t, "automount"+reaper, lab.Options{}))
}

// TestDaemonIsFirstProcess: it cannot be replaced without ending the container.
func TestDaemonIsFirstProcess(t *testing.T) {
	requireHook(t)
	s := takeAutomount(t, "exec automount -f", lab.Options{})
	r := restoreWithHook(t, s, lab.RestoreOptions{})
	checkUnrepaired(t, r.ReadReport(t), "first process")
	r.CheckAnswers(t, lab.DaemonAccesses[2:])
	if daemon := r.Daemon(t); daemon != r.PID {
		t.Errorf("process %d serves, want %d", daemon, r.PID)
	}
}

func checkUnrepaired(t *testing.T, report lab.Report, reason string) {
	t.Helper()
	for _, m := range report.Mounts {
		want := "unrepaired"
		if m.Path == lab.Indirect {
			want = "healthy"
		}
		if m.Outcome != want || want == "unrepaired" && !strings.Contains(m.Reason, reason) {
			t.Errorf("report: %s: %s (%s), want %s because of %s", m.Path, m.Outcome, m.Reason, want, reason)
		}
	}
	if len(report.Mounts) != 3 {
		t.Errorf("report: %d mounts, want 3", len(report.Mounts))
	}
}

// checkRespawned: exactly one daemon serves, like the old one, and nobody waits.
func checkRespawned(t *testing.T, r *lab.Container, old traits, report lab.Report) {
	t.Helper()
	t.Logf("repaired in %.1f ms", report.DurationMS)
	if report.Outcome != "repaired" {
		t.Errorf("report: outcome %q", report.Outcome)
	}
	daemon := r.Daemon(t)
	for _, m := range report.Mounts {
		want := "respawned"
		if m.Path == lab.Indirect {
			want = "healthy"
		} else if m.Master.PID != daemon {
			t.Errorf("report: %s: served by process %d, want %d", m.Path, m.Master.PID, daemon)
		}
		if m.Outcome != want {
			t.Errorf("report: %s: %s (%s), want %s", m.Path, m.Outcome, m.Reason, want)
		}
	}
	r.CheckAnswers(t, lab.DaemonAccesses)
	checkNoWaiters(t, r)
	old.compare(t, kept(t, daemon))
	lab.WaitNoneRunning(t, holderLimit)
}

// checkAgain: a second repair leaves the new daemon alone.
func checkAgain(t *testing.T, r *lab.Container) {
	t.Helper()
	daemon := r.Daemon(t)
	result := lab.RunHook(t, nil, nil, "repair", "--json", strconv.Itoa(r.PID))
	if report := lab.ParseReport(t, result.Stdout); report.Outcome != "nothing-to-do" || result.Status != 0 {
		t.Errorf("a second repair: %q, status %d: %s", report.Outcome, result.Status, result.Stderr)
	}
	if now := r.Daemon(t); now != daemon {
		t.Errorf("a second repair replaced daemon %d by %d", daemon, now)
	}
}

// traits are what the kernel says of a process that must be the same for its
// successor. Links to namespaces are not: another restore makes others.
type traits struct {
	status string
	files  map[string]string
}

// own are the lines of a status that belong to one process only. automount has
// a thread for each map, and more while it works.
var own = []string{"Tgid", "Pid", "PPid", "NStgid", "NSpid", "NSpgid", "NSsid", "FDSize", "Vm", "Rss", "Threads", "SigQ", "voluntary", "nonvoluntary", "State"}

func kept(t *testing.T, pid int) traits {
	t.Helper()
	read := func(name string) string { return readFile(t, fmt.Sprintf("/proc/%d/%s", pid, name)) }
	k := traits{status: read("status"), files: map[string]string{}}
	for _, name := range []string{"limits", "environ", "cmdline", "oom_score_adj", "cgroup", "comm", "personality"} {
		k.files[name] = read(name)
	}
	for _, name := range []string{"cwd", "root", "exe", "fd/0", "fd/1", "fd/2"} {
		link, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil {
			t.Fatal(err)
		}
		k.files[name] = link
	}
	init := line(k.status, "NSpid")
	fields := strings.Fields(init)
	k.files["leads its session"] = strconv.FormatBool(slices.Equal(fields, strings.Fields(line(k.status, "NSsid"))))
	k.files["leads its group"] = strconv.FormatBool(slices.Equal(fields, strings.Fields(line(k.status, "NSpgid"))))
	return k
}

func (k traits) compare(t *testing.T, now traits) {
	t.Helper()
	for want := range strings.Lines(k.status) {
		name, value, _ := strings.Cut(strings.TrimSpace(want), ":")
		if slices.ContainsFunc(own, func(prefix string) bool { return strings.HasPrefix(name, prefix) }) {
			continue
		}
		if have := line(now.status, name); have != strings.TrimSpace(value) {
			t.Errorf("status of the new daemon: %s: %q, want %q", name, have, value)
		}
	}
	for name, want := range k.files {
		if now.files[name] != want {
			t.Errorf("%s of the new daemon: %q, want %q", name, now.files[name], want)
		}
	}
}

// line is the value of a line of a status.
func line(status, name string) string {
	for l := range strings.Lines(status) {
		if value, ok := strings.CutPrefix(l, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func statusLine(t *testing.T, pid int, name string) string {
	t.Helper()
	return line(readFile(t, fmt.Sprintf("/proc/%d/status", pid)), name)
}
