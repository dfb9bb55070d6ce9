package e2e

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// needed are the capabilities that the program needs, as in SECURITY.md.
var needed = []string{"sys_admin", "sys_ptrace", "dac_read_search", "dac_override", "kill", "sys_chroot"}

// limitedCommand is a command line that runs the program with these capabilities only.
func limitedCommand(capabilities []string) []string {
	var set strings.Builder
	set.WriteString("-all")
	for _, name := range capabilities {
		set.WriteString(",+" + name)
	}
	return []string{"setpriv", "--inh-caps", "-all", "--bounding-set", set.String(), "--", lab.Hook()}
}

// limitedRepairs are whole repairs with these capabilities: as action script and by hand,
// with each of the cures. They return what failed.
var limitedRepairs = []struct {
	name string
	run  func(t *testing.T, s *snapshot, capabilities []string) []string
}{
	{"preserved and reloaded", func(t *testing.T, s *snapshot, capabilities []string) []string {
		lab.InstallWrappedScript(t, strings.Join(limitedCommand(capabilities), " "), "")
		r, err := s.TryRestore(t, lab.RestoreOptions{})
		if err != nil {
			s.RemoveFailed(t)
			return []string{"the restore fails: " + err.Error()}
		}
		defer r.Kill(t)
		return append(unansweredAccesses(t, r), notCured(r.ReadReport(t), "preserved")...)
	}},
	{"reexecuted", func(t *testing.T, s *snapshot, capabilities []string) []string {
		return limitedByHand(t, s, capabilities, "reexecuted", func() { lab.HoldNumbersUpTo(t, s.highest) })
	}},
	{"restarted", func(t *testing.T, s *snapshot, capabilities []string) []string {
		return limitedByHand(t, s, capabilities, "restarted", func() {}, "--strategy", "restart")
	}},
}

func limitedByHand(t *testing.T, s *snapshot, capabilities []string, cure string, before func(), options ...string) []string {
	t.Helper()
	s.InstallGroupsOnly(t)
	r := s.Restore(t, lab.RestoreOptions{})
	defer r.Kill(t)
	before()
	command := limitedCommand(capabilities)
	args := append(append(command[1:], "repair", strconv.Itoa(r.PID), "--json"), options...)
	result := lab.RunProgram(t, command[0], args...)
	return append(unansweredAccesses(t, r), notCured(lab.ParseReport(t, result.Stdout), cure)...)
}

// unansweredAccesses returns the accesses that do not answer, with a short time limit.
func unansweredAccesses(t *testing.T, r *lab.Restored) []string {
	t.Helper()
	var list []string
	for i, o := range r.TouchAccesses(t, lab.Accesses, lab.TouchLimit) {
		if a := lab.Accesses[i]; !a.Answers(o) {
			list = append(list, fmt.Sprintf("%s: %s", a.Path, o))
		}
	}
	return list
}

func notCured(report lab.Report, cure string) []string {
	var list []string
	for _, m := range report.Mounts {
		if m.Outcome == "unrepaired" || m.Master.Kind == "systemd" && m.Outcome != cure {
			list = append(list, fmt.Sprintf("%s: %s (%s)", m.Path, m.Outcome, m.Reason))
		}
	}
	if len(report.Mounts) == 0 {
		list = append(list, "no mounts in the report")
	}
	return list
}

// TestLeastPrivilege makes whole restores and repairs with exactly the documented
// capabilities.
func TestLeastPrivilege(t *testing.T) {
	requireHook(t)
	s := checkpoint(t)
	for _, repair := range limitedRepairs {
		t.Run(repair.name, func(t *testing.T) {
			for _, problem := range repair.run(t, s, needed) {
				t.Error(problem)
			}
		})
	}
}

// TestEveryCapabilityIsNeeded drops one capability at a time: each time something fails.
// CAP_DAC_OVERRIDE and CAP_KILL are for processes and control groups of other users,
// which this laboratory's container does not have.
func TestEveryCapabilityIsNeeded(t *testing.T) {
	requireHook(t)
	s := checkpoint(t)
	forOthers := []string{"dac_override", "dac_read_search", "kill"}
	for _, name := range needed {
		if slices.Contains(forOthers, name) && os.Getenv("ALL_CAPABILITIES") == "" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			rest := slices.DeleteFunc(slices.Clone(needed), func(other string) bool { return other == name })
			for _, repair := range limitedRepairs {
				if problems := repair.run(t, s, rest); len(problems) > 0 {
					t.Logf("%s without it: %s", repair.name, problems[0])
					return
				}
			}
			t.Error("all mounts were repaired without it")
		})
	}
}
