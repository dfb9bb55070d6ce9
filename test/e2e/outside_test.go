package e2e

import (
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

const servedOutside = "served from outside the container"

// checkOutside checks that every mount at the path is reported as served from outside.
func checkOutside(t *testing.T, report lab.Report, at string) {
	t.Helper()
	found := 0
	for _, m := range report.Mounts {
		if m.Path != at {
			continue
		}
		found++
		if m.Outcome != "healthy" || m.Reason != servedOutside || m.Master.Kind != "outside" {
			t.Errorf("report: %s: %s (%s), master %q; want healthy (%s)", at, m.Outcome, m.Reason, m.Master.Kind, servedOutside)
		}
	}
	if found == 0 {
		t.Errorf("report: nothing about %s: %+v", at, report.Mounts)
	}
}

// runOn runs a command on the container, which must end with 0.
func runOn(t *testing.T, c *lab.Container, command string) lab.Report {
	t.Helper()
	result := lab.RunHook(t, nil, nil, command, strconv.Itoa(c.PID), "--json")
	if result.Status != 0 {
		t.Errorf("%s: exit status %d: %s\n%s", command, result.Status, result.Stderr, result.Stdout)
	}
	t.Logf("%s took %s", command, result.Took)
	return lab.ParseReport(t, result.Stdout)
}

// TestHostAutomount restores a container that shows the map of the node's own automount.
// The program does nothing with the host's mounts, its daemon and its waiters.
func TestHostAutomount(t *testing.T) {
	requireHook(t)
	for _, propagation := range []string{"rprivate", "rslave"} {
		t.Run(propagation, func(t *testing.T) {
			host := lab.StartHost(t)
			lab.InstallActionScript(t, "", "enable-external-masters")
			c := lab.Start(t, lab.Options{Mounts: []specs.Mount{host.Bind(lab.HostIndirect, propagation)}})
			c.Populate(t)
			checkHost(t, host, c, propagation)
			s := checkpointOf(t, c)
			before := host.Mounts(t)
			lab.InstallActionScript(t, lab.Hook(), "enable-external-masters")
			r := s.Restore(t, lab.RestoreOptions{})
			report := r.ReadReport(t)
			if report.Outcome != "repaired" {
				t.Errorf("report: outcome %q, want repaired: %s", report.Outcome, firstReason(report))
			}
			checkOutside(t, report, lab.HostIndirect)
			checkHost(t, host, r.Container, propagation)
			if report := runOn(t, r.Container, "repair"); report.Outcome != "nothing-to-do" {
				t.Errorf("repair: outcome %q, want nothing-to-do", report.Outcome)
			}
			checkHost(t, host, r.Container, propagation)
			r.CheckAnswers(t, lab.Accesses)

			host.Wait(t, lab.HostIndirect+"/slow/"+lab.Marker)
			waiter := r.Command("cat", lab.HostIndirect+"/slow/"+lab.Marker) // a waiter of the container, too
			if err := waiter.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = syscall.Kill(-waiter.Process.Pid, syscall.SIGKILL)
				_ = waiter.Wait()
			}()
			waitUntil(t, "a process of the container waits", func() bool { return len(r.Waiters(t)) > 0 })
			for _, command := range []string{"inspect", "repair"} {
				report := runOn(t, r.Container, command)
				checkOutside(t, report, lab.HostIndirect)
				if report.Outcome != "nothing-to-do" || len(report.Waiting) > 0 {
					t.Errorf("%s with a process of the host waiting: outcome %q, waiting %v", command, report.Outcome, report.Waiting)
				}
			}
			if after := host.Mounts(t); !maps.Equal(before, after) {
				t.Errorf("mounts of the host: %v, before: %v", after, before)
			}
		})
	}
}

// checkHost reads the host's mounts on the host and, where they propagate, in the
// container, and unmounts the triggered file systems.
func checkHost(t *testing.T, host *lab.Host, c *lab.Container, propagation string) {
	t.Helper()
	if propagation == "rslave" {
		c.CheckAnswers(t, []lab.Access{{Path: lab.HostIndirect + "/data/" + lab.Marker, Content: lab.HostIndirect, About: "the host's map in the container"}})
	}
	for _, path := range []string{lab.HostIndirect + "/data/" + lab.Marker, lab.HostDirect + "/" + lab.Marker} {
		if text, err := host.Read(path); err != nil || text != lab.HostIndirect {
			t.Errorf("the host's %s: %q, %v", path, text, err)
		}
	}
	host.Release(t)
}

// TestHostDirectMap has a process of the node wait on a direct map that a container
// shows. A process of the node's pid namespace that opens its root waits, too. CRIU does
// not dump such a container ("autofs pipe is not empty", "unreachable sharing").
func TestHostDirectMap(t *testing.T) {
	requireHook(t)
	host := lab.StartHost(t)
	c := lab.Start(t, lab.Options{Plain: true, Args: []string{"sleep", "1000"}, Mounts: []specs.Mount{host.Bind(path.Dir(lab.HostDirect), "rprivate")}})
	look := func() {
		t.Helper()
		for _, command := range []string{"inspect", "repair"} {
			result := lab.RunHook(t, nil, nil, command, strconv.Itoa(c.PID), "--json")
			report := lab.ParseReport(t, result.Stdout)
			checkOutside(t, report, lab.HostDirect)
			if result.Status != 0 || report.Outcome != "nothing-to-do" || len(report.Waiting) > 0 || result.Took > lab.TouchLimit {
				t.Errorf("%s: status %d after %s, outcome %q, waiting %v: %s", command, result.Status, result.Took, report.Outcome, report.Waiting, result.Stderr)
			}
		}
	}
	look()
	resume := host.Stop(t)
	defer resume()
	host.Wait(t, lab.HostDirect+"/"+lab.Marker)
	look()
	resume()
	if text, err := host.Read(lab.HostDirect + "/" + lab.Marker); err != nil || text != lab.HostIndirect {
		t.Errorf("the host's %s: %q, %v", lab.HostDirect, text, err)
	}
}

// TestSibling has two containers share a folder in which the systemd of one serves an
// automount. For the other container the program connects to no process.
func TestSibling(t *testing.T) {
	requireHook(t)
	volume := lab.SharedFolder(t)
	const auto = "/volume/auto"
	bind := func(at, propagation string) specs.Mount {
		return specs.Mount{Destination: at, Type: "bind", Source: volume, Options: []string{"rbind", propagation}}
	}
	unit := "/etc/systemd/system/" + lab.UnitName(auto, "automount")
	a := lab.Start(t, lab.Options{Propagation: "rshared", Mounts: []specs.Mount{bind("/volume", "rshared")}, Files: map[string]string{
		unit: "[Automount]\nWhere=" + auto + "\n",
		"/etc/systemd/system/" + lab.UnitName(auto, "mount"): "[Mount]\nWhat=tmpfs\nWhere=" + auto + "\nType=tmpfs\n",
	}})
	a.Run(t, "systemctl", "start", lab.UnitName(auto, "automount"))
	a.Populate(t)
	b := lab.Start(t, lab.Options{Plain: true, Args: []string{"sleep", "1000"}, Mounts: []specs.Mount{bind("/volume", "rslave"), bind("/other", "rslave")}})
	before := a.Units(t)
	for _, command := range []string{"inspect", "repair"} {
		report, trace := tracedHook(t, command, b.PID)
		for _, path := range []string{auto, "/other/auto"} {
			checkOutside(t, report, path)
		}
		checkNoContact(t, command, trace)
	}
	for _, change := range changedUnits(before, a.Units(t)) {
		t.Errorf("the other container's systemd: %s", change)
	}
	if o := a.Try(t, lab.AnswerLimit, "stat", "--file-system", "--format=%T", auto+"/."); !lab.UncoveredAnswers(o) {
		t.Errorf("%s in its own container: %s; want a tmpfs", auto, o)
	}
}

// tracedHook runs a command, which must exit with 0, and returns its report and its
// system calls.
func tracedHook(t *testing.T, command string, pid int) (lab.Report, string) {
	t.Helper()
	file := filepath.Join(lab.Scratch(t, "traces"), "outside-"+command)
	result := lab.RunProgram(t, "strace", "--follow-forks", "--output="+file, lab.Hook(), command, strconv.Itoa(pid), "--json")
	if result.Status != 0 {
		t.Errorf("%s: exit status %d: %s", command, result.Status, result.Stderr)
	}
	return lab.ParseReport(t, result.Stdout), readFile(t, file)
}

// TestSharedPIDNamespace has two restored containers in one pid namespace, as those of a
// pod, each with its own automount daemon.
func TestSharedPIDNamespace(t *testing.T) {
	requireHook(t)
	pause := lab.Pause(t)
	const shell = "setsid automount --foreground --dont-check-daemon &\nwhile :; do sleep 1000; done\n"
	options := lab.Options{PIDNamespace: pause}
	a, b := lab.StartAutomount(t, shell, options), lab.StartAutomount(t, shell, options)
	snapshots := []*snapshot{checkpointWithoutSystemd(t, a), checkpointWithoutSystemd(t, b)}
	lab.InstallActionScript(t, "")
	var restored []*lab.Restored
	for _, s := range snapshots {
		restored = append(restored, s.Restore(t, lab.RestoreOptions{}))
	}
	theirs := func() (string, []string) {
		pid := daemonBelow(t, restored[1].PID)
		var mounts []string
		for path, m := range lab.Autofs(t, restored[1].PID) {
			mounts = append(mounts, fmt.Sprint(path, m.ID, m.Minor))
		}
		slices.Sort(mounts)
		return fmt.Sprint(pid, processStart(t, pid)), mounts
	}
	daemon, mounts := theirs()
	result := lab.RunHook(t, nil, nil, "repair", strconv.Itoa(restored[0].PID), "--json", "--strategy", "restart")
	report := lab.ParseReport(t, result.Stdout)
	t.Log(outcomes(report))
	for _, m := range report.Mounts {
		if m.MountNamespace != nsenter.MountNamespaceOf(restored[0].PID).Inode {
			t.Errorf("report: %s of mount namespace %d, which is not the container's", m.Path, m.MountNamespace)
		}
	}
	if after, now := theirs(); after != daemon || !slices.Equal(now, mounts) {
		t.Errorf("the other container: daemon %s, mounts %v; before: %s, %v", after, now, daemon, mounts)
	}
	restored[0].CheckAnswers(t, lab.DaemonAccesses)
}

// daemonBelow returns the pid of the automount daemon that descends from a process.
func daemonBelow(t *testing.T, pid int) int {
	t.Helper()
	p, err := nsenter.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	list, err := p.Descendants()
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range list {
		if readFile(t, "/proc/"+strconv.Itoa(pid)+"/comm") == "automount\n" {
			return pid
		}
	}
	t.Fatalf("no automount below process %d", pid)
	return 0
}

func processStart(t *testing.T, pid int) uint64 {
	t.Helper()
	p, err := nsenter.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	return p.StartTime()
}
