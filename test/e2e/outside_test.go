package e2e

import (
	"maps"
	"strconv"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

const servedOutside = "served from outside the container"

// checkOutside wants every mount at the path reported as not the container's own.
func checkOutside(t *testing.T, report lab.Report, path string) {
	t.Helper()
	found := 0
	for _, m := range report.Mounts {
		if m.Path != path {
			continue
		}
		found++
		if m.Outcome != "healthy" || m.Reason != servedOutside || m.Master.Kind != "outside" {
			t.Errorf("report: %s: %s (%s), master %q; want healthy (%s)", path, m.Outcome, m.Reason, m.Master.Kind, servedOutside)
		}
	}
	if found == 0 {
		t.Errorf("report: nothing about %s: %+v", path, report.Mounts)
	}
}

// inspectOutside runs a command on the container, which must end with 0.
func runOn(t *testing.T, c *lab.Container, command string) lab.Report {
	t.Helper()
	result := lab.RunHook(t, nil, nil, command, strconv.Itoa(c.PID), "--json")
	if result.Status != 0 {
		t.Errorf("%s: exit status %d: %s\n%s", command, result.Status, result.Stderr, result.Stdout)
	}
	t.Logf("%s took %s", command, result.Took)
	return lab.ParseReport(t, result.Stdout)
}

// TestHostAutomount restores a container that shows the map of the node's own
// automount. The host's mounts, its daemon and the processes that wait there are
// none of the program's business.
func TestHostAutomount(t *testing.T) {
	requireHook(t)
	for _, propagation := range []string{"rprivate", "rslave"} {
		t.Run(propagation, func(t *testing.T) {
			host := lab.StartHost(t)
			lab.InstallActionScript(t, "", "enable-external-masters")
			c := lab.Start(t, lab.Options{Mounts: []specs.Mount{host.Bind(propagation)}})
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

			host.Wait(t) // until the end
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

// checkHost reads the host's mounts on the host and, where that propagates, in the
// container, and takes away again what that brought.
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
