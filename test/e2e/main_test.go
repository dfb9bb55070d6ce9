// Package e2e drives the program as people and engines do: real systemd
// containers, really checkpointed and restored by CRIU.
//
// Run it with `make test-e2e`. With HOOK=/bin/true the same tests show what
// happens without the program: they fail.
package e2e

import (
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// answers are the paths that every process of the container must be able to
// read, with what is there. The first five are uncovered: without a repair they
// hang. The others lie on mounts that were there at the checkpoint, or on an
// indirect map, whose requests automount answers by name.
var answers = []struct{ path, want string }{
	{lab.Idle + "/marker", lab.Idle},
	{lab.Blank + "/marker", lab.Blank},
	{lab.Binfmt + "/status", "enabled"},
	{lab.Direct + "/marker", lab.Direct},
	{lab.Direct2 + "/marker", lab.Direct2},
	{lab.Covered + "/marker", lab.Covered},
	{lab.Stacked + "/upper", "upper"},
	{lab.Stacked + "/nested/file", "nested in upper"},
	{lab.Indirect + "/active/marker", lab.Indirect + "/active"},
	{lab.Indirect + "/idle/marker", lab.Indirect + "/idle"},
}

const stale = 5 // of the paths above

func paths() []string {
	var out []string
	for _, a := range answers {
		out = append(out, a.path)
	}
	return out
}

// snapshot is a container in files, with its state right before the checkpoint.
type snapshot struct {
	*lab.Checkpoint
	units map[string]lab.Unit
}

func take(t *testing.T, options lab.Options) *snapshot {
	t.Helper()
	c := lab.Start(t, options)
	s := &snapshot{}
	if options.Plain {
		s.units = c.Settle(t)
	} else {
		c.Populate(t)
		s.units = c.Units(t)
	}
	s.Checkpoint = c.Checkpoint(t)
	return s
}

var (
	once   sync.Once
	common *snapshot
)

// checkpoint is shared by all tests that can do with the standard container:
// restoring it takes a tenth of a second, making it two seconds.
func checkpoint(t *testing.T) *snapshot {
	t.Helper()
	lab.RequireNode(t)
	once.Do(func() { common = take(t, lab.Options{}) })
	if common == nil {
		t.Fatal("the checkpoint that all tests share could not be made; the first of them says why")
	}
	return common
}

// requireHook fails when the program under test was not built.
func requireHook(t *testing.T) {
	t.Helper()
	lab.RequireNode(t)
	if _, err := os.Stat(lab.Hook()); err != nil {
		t.Fatalf("the program under test: %v (make build, or HOOK=/path)", err)
	}
}

// restoreWithHook restores with the program as CRIU's action script.
func restoreWithHook(t *testing.T, s *snapshot, options lab.RestoreOptions) *lab.Restored {
	t.Helper()
	requireHook(t)
	lab.InstallActionScript(t, lab.Hook())
	r := s.Restore(t, options)
	t.Logf("restored in %s with %s", r.Took, lab.Hook())
	return r
}

// restoreStale restores without any action script.
func restoreStale(t *testing.T, s *snapshot) *lab.Restored {
	t.Helper()
	lab.InstallActionScript(t, "")
	return s.Restore(t, lab.RestoreOptions{})
}

// checkAnswers touches every automount and reports what does not answer with
// the content that only the right file system has.
func checkAnswers(t *testing.T, c *lab.Container) {
	t.Helper()
	for i, o := range c.TouchAll(t, paths(), lab.TouchLimit) {
		if o.Hung || o.Failed || strings.TrimSpace(o.Output) != answers[i].want {
			t.Errorf("%s: %s; want %q", answers[i].path, o, answers[i].want)
		}
	}
}

// checkAutomountsBeneath takes the covers away and reports covered automounts
// that do not bring a new file system.
func checkAutomountsBeneath(t *testing.T, c *lab.Container) {
	t.Helper()
	c.Uncover(t)
	for _, path := range []string{lab.Covered, lab.Stacked} {
		o := c.Try(t, lab.TouchLimit, "stat", "--file-system", "--format=%T", path+"/.")
		if o.Hung || o.Failed || strings.TrimSpace(o.Output) != "tmpfs" {
			t.Errorf("%s, uncovered: %s; want a new tmpfs", path, o)
		}
	}
}

func checkNoWaiters(t *testing.T, c *lab.Container) {
	t.Helper()
	if waiters := c.Waiters(t); len(waiters) > 0 {
		t.Errorf("processes are stuck on autofs mounts: %+v", waiters)
	}
}
