package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// noGroup is CRIU's error where a watched control group does not exist.
const noGroup = "cgroup.events: No such file or directory"

// TestFailsWithoutGroups shows why the program creates control groups: without them the
// same checkpoint cannot be restored.
func TestFailsWithoutGroups(t *testing.T) {
	s := checkpoint(t)
	lab.InstallActionScript(t, "")
	r, err := s.TryRestore(t, lab.RestoreOptions{})
	if err == nil {
		r.Kill(t)
		t.Fatal("restored without the program: so the other tests do not show that it creates the missing groups")
	}
	if !strings.Contains(err.Error(), noGroup) {
		t.Errorf("want the error %q: %v", noGroup, err)
	}
	restoreWithHook(t, s, lab.RestoreOptions{}).CheckAnswers(t, lab.Accesses)
}

// groupCase is a container that is restored in several ways.
type groupCase struct {
	name    string
	options lab.Options
	// others are the restores besides one with the same name and group.
	others []groupRestore
	fails  []string // CRIU's errors, where no restore can work
	// rootOnly is whether CRIU restores all processes into the container's own group.
	// Then systemd does not know which service a process belongs to.
	rootOnly bool
}

type groupRestore struct {
	name    string
	options lab.RestoreOptions
	reason  string // the program's error, where the restore fails
}

// elsewhere returns restores under another name, and in another control group.
func elsewhere(reason string) []groupRestore {
	id := os.Getenv("LAB_ID") + "-other"
	return []groupRestore{
		{name: "other name", options: lab.RestoreOptions{ID: id + "1"}, reason: reason},
		{name: "other group", options: lab.RestoreOptions{CgroupsPath: "/" + id + "2"}, reason: reason},
	}
}

func groupCases() []groupCase {
	var cases []groupCase
	for _, runtime := range []string{"runc", "crun"} {
		add := func(name string, c groupCase) {
			c.name, c.options.Runtime = runtime+" "+name, runtime
			cases = append(cases, c)
		}
		add("own view", groupCase{others: elsewhere("")})
		hosts := groupCase{options: lab.Options{HostCgroups: true}, others: elsewhere("")}
		if runtime == "crun" || !strings.HasPrefix(lab.Version("runc"), "1.1.") {
			hosts.others = elsewhere("a container without a cgroup namespace can be restored only where its control group has the same path")
			hosts.rootOnly = true
		}
		add("host's view", hosts)
		for _, mode := range []string{"soft", "full", "ignore"} {
			c := groupCase{options: lab.Options{ManageGroups: mode}}
			if mode == "ignore" {
				// crun, and runc from 1.2 on
				c.fails = []string{"Can't move 1 into unified/", "Unable to open /sys/fs/cgroup/init.scope/"}
			}
			add(mode, c)
		}
	}
	return cases
}

// TestGroups makes ordinary restores, with the program installed and nothing prepared:
// with and without a cgroup namespace, under the same name and another one, in the same
// control group and another one, and with all ways in which CRIU handles control groups.
func TestGroups(t *testing.T) {
	requireHook(t)
	for _, c := range groupCases() {
		t.Run(c.name, func(t *testing.T) {
			s := c.checkpoint(t)
			if s == nil {
				t.Logf("%s %s does not know the mode", c.options.Runtime, lab.Version(c.options.Runtime))
				return
			}
			if len(c.fails) > 0 {
				checkCannotRestore(t, s, lab.RestoreOptions{}, c.fails...)
				return
			}
			for _, restore := range append([]groupRestore{{name: "same"}}, c.others...) {
				t.Run(restore.name, func(t *testing.T) {
					if restore.reason != "" {
						checkCannotRestore(t, s, restore.options, restore.reason)
						return
					}
					lab.InstallActionScript(t, lab.Hook())
					r, err := s.TryRestore(t, restore.options)
					if err != nil {
						t.Fatalf("%v\n%s", err, hookLines(s.RestoreLog()))
					}
					own := r.OwnGroup(t)
					checkGroups(t, s, own)
					checkPreserved(t, r)
					r.CheckAnswers(t, lab.Accesses)
					if warned := strings.Contains(r.Log, "all processes are in the container's own control group"); warned != c.rootOnly {
						t.Errorf("warned that all processes are in one group: %t, want %t:\n%s", warned, c.rootOnly, hookLines(r.Log))
					}
					r.Delete(t)
					switch left := lab.GroupsBeneath(t, own); {
					case len(left) == 0:
					case r.Named(own):
						t.Errorf("left after the end of the container: %q", left)
					default:
						t.Logf("%s put the container into %q, not into the requested group, and leaves %q there", c.options.Runtime, own, left)
					}
				})
			}
		})
	}
}

// checkpoint returns nil if the runtime does not know the way of handling control groups.
func (c groupCase) checkpoint(t *testing.T) *snapshot {
	t.Helper()
	if c.options.ManageGroups == "" && !c.options.HostCgroups {
		return sharedCheckpoint(t, c.options)
	}
	container := lab.Start(t, c.options)
	container.Populate(t)
	made, err := container.TryCheckpoint(t)
	switch {
	case err == nil:
		return &snapshot{Checkpoint: made}
	case !strings.Contains(err.Error(), "nvalid manage cgroups mode"):
		t.Fatal(err)
	}
	return nil
}

// checkGroups compares a restored container's control groups with those at the
// checkpoint: some groups of systemd are removed at once, none is new.
func checkGroups(t *testing.T, s *snapshot, own string) {
	t.Helper()
	had := map[string]bool{}
	for _, name := range s.Groups() {
		had[name] = true
	}
	groups := lab.GroupsBeneath(t, own)
	for _, name := range groups {
		if !had[name] {
			t.Errorf("control group %q is new", name)
		}
	}
	if !strings.Contains(strings.Join(groups, "\n"), "system.slice/mnt-covered.mount") {
		t.Errorf("the control group of an active mount unit is absent; there are %q", groups)
	}
}

// checkCannotRestore checks that a restore fails with one of the errors in CRIU's log,
// and leaves nothing behind.
func checkCannotRestore(t *testing.T, s *snapshot, options lab.RestoreOptions, reason ...string) {
	t.Helper()
	lab.InstallActionScript(t, lab.Hook())
	r, err := s.TryRestore(t, options)
	if err == nil {
		defer r.Kill(t)
		t.Errorf("restored; want the reason %q", reason)
		return
	}
	if log := s.RestoreLog(); !slices.ContainsFunc(reason, func(text string) bool { return strings.Contains(log, text) }) {
		t.Errorf("want %q in the log: %v\n%s", reason, err, hookLines(log))
	}
}

// TestFailedRestoreLeavesNoGroups makes restores fail after the program has created
// control groups.
func TestFailedRestoreLeavesNoGroups(t *testing.T) {
	requireHook(t)
	for _, options := range []lab.Options{{Runtime: "runc"}, {Runtime: "crun"}, {Runtime: "podman", OCI: "crun"}, {Runtime: "criu"}} {
		t.Run(options.Runtime, func(t *testing.T) {
			s := sharedCheckpoint(t, options)
			seen := filepath.Join(lab.Scratch(t, s.ContainerID()+"-seen"), "groups")
			lab.InstallWrappedScript(t, lab.Hook(), `if [ "$CRTOOLS_SCRIPT_ACTION" = post-restore ]; then
	ls -R /sys/fs/cgroup >`+seen+`
	exit 1
fi
`)
			r, err := s.TryRestore(t, lab.RestoreOptions{})
			if err == nil {
				r.Kill(t)
				t.Fatal("restored although an action script failed")
			}
			if !strings.Contains(readFile(t, seen), "mnt-covered.mount") {
				t.Error("the program created no control group: the test proves nothing")
			}
			lab.WaitNoneRunning(t, watcherLimit)
			// Some engines leave the groups that CRIU creates.
			for _, name := range s.GroupsLeft(t) {
				if strings.HasSuffix(name, ".mount") || strings.HasSuffix(name, "system-modprobe.slice") {
					t.Errorf("left: %s", name)
				}
			}
		})
	}
}
