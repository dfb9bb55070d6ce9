package lab

import (
	"strings"
	"testing"
	"time"
)

// AnswerLimit is how long a touch, or another event that must happen, may take on a busy
// machine. A test that passes does not wait for it; one that expects a touch to hang waits
// for [TouchLimit].
var AnswerLimit = 4 * TouchLimit

// Eventually waits until a condition is met, and returns how long that took.
func Eventually(t testing.TB, limit time.Duration, what string, met func() bool) time.Duration {
	t.Helper()
	for started := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		if met() {
			return time.Since(started)
		}
		if time.Since(started) > limit {
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// Access is a path that every process of the container must be able to read.
type Access struct {
	Path    string // a file on the automounted file system
	Content string // of that file, which no other file system has
	About   string // what kind of automount it is, for people
	// Stale is whether the access hangs after a restore without a repair. The others are
	// on mounts that existed at the checkpoint, or on an indirect map, whose requests
	// automount answers by name.
	Stale bool
}

// Accesses has at least one access for every automount of the container.
var Accesses = []Access{
	{Idle + "/" + Marker, Idle, "systemd automount, idle", true},
	{Blank + "/" + Marker, Blank, "systemd automount, blank in its path", true},
	{Binfmt + "/status", "enabled", "systemd automount, Debian's own", true},
	{Direct + "/" + Marker, Direct, "automount, direct map", true},
	{Direct2 + "/" + Marker, Direct2, "automount, direct map", true},
	{Covered + "/" + Marker, Covered, "on a mount that covers an automount", false},
	{Stacked + "/upper", "upper", "on a mount stacked on such a mount", false},
	{Stacked + "/nested/file", "nested in upper", "on a mount nested in that one", false},
	{Indirect + "/active/" + Marker, Indirect + "/active", "automount, indirect map, mounted", false},
	{Indirect + "/idle/" + Marker, Indirect + "/idle", "automount, indirect map, idle", false},
}

// Answers reports whether a touch read the content of the automounted file system.
func (a Access) Answers(o Touch) bool {
	return !o.Hung && !o.Failed && strings.TrimSpace(o.Output) == a.Content
}

// TouchAccesses touches several paths at the same time, so that all that hang together
// take one limit.
func (c *Container) TouchAccesses(t testing.TB, accesses []Access, limit time.Duration) []Touch {
	t.Helper()
	commands := make([][]string, len(accesses))
	for i, a := range accesses {
		commands[i] = []string{"cat", a.Path}
	}
	return c.TryAll(t, limit, commands)
}

// CheckAnswers reports every access that does not answer with its content.
func (c *Container) CheckAnswers(t testing.TB, accesses []Access) {
	t.Helper()
	for i, o := range c.TouchAccesses(t, accesses, AnswerLimit) {
		if a := accesses[i]; !a.Answers(o) {
			t.Errorf("%s (%s): %s; want %q", a.Path, a.About, o, a.Content)
		}
	}
}

// Uncovered are the mount points whose covers [Container.Uncover] unmounts.
var Uncovered = []string{Covered, Stacked}

// TouchUncovered touches the automounts that were covered. A healthy one mounts a new
// file system, whose type is the output.
func (c *Container) TouchUncovered(t testing.TB, limit time.Duration) []Touch {
	t.Helper()
	commands := make([][]string, len(Uncovered))
	for i, path := range Uncovered {
		commands[i] = []string{"stat", "--file-system", "--format=%T", path + "/."}
	}
	return c.TryAll(t, limit, commands)
}

// UncoveredAnswers reports whether a touch of an uncovered automount mounted the new file
// system.
func UncoveredAnswers(o Touch) bool {
	return Access{Content: "tmpfs"}.Answers(o)
}
