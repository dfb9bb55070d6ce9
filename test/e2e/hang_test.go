package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestHangsWithoutHook shows the hang without the program, so that the other tests can
// fail: after a restore every direct automount is stale, while all units of systemd are
// active.
func TestHangsWithoutHook(t *testing.T) {
	s := checkpoint(t)
	r := restoreStale(t, s)
	t.Logf("checkpoint %s, restore %s", s.Took, r.Took)

	if changes := changedUnits(s.units, r.Units(t)); len(changes) > 0 {
		t.Errorf("systemd logged a change after the restore:\n%s", strings.Join(changes, "\n"))
	}
	for i, o := range touchStale(t, r) {
		switch a := lab.Accesses[i]; {
		case a.Stale && !o.Waiting:
			t.Errorf("%s (%s): %s; want it stuck in autofs_wait", a.Path, a.About, o)
		case !a.Stale && !a.Answers(o):
			t.Errorf("%s (%s): %s; want %q", a.Path, a.About, o, a.Content)
		}
	}

	// A covered automount is stale, too: its cover hides that.
	r.Unhide(t)
	r.Uncover(t)
	for i, o := range r.TouchUncovered(t, lab.Limit(time.Second)) {
		if !o.Waiting {
			t.Errorf("%s, uncovered: %s; want it stuck in autofs_wait", lab.Uncovered[i], o)
		}
	}
}

// touchStale touches all accesses at the same time. Those that must answer have the time
// limit for a busy machine, those that must hang a shorter one.
func touchStale(t *testing.T, r *lab.Restored) []lab.Touch {
	t.Helper()
	var stale, others []lab.Access
	for _, a := range lab.Accesses {
		if a.Stale {
			stale = append(stale, a)
		} else {
			others = append(others, a)
		}
	}
	ended := make(chan []lab.Touch, 1)
	go func() { ended <- r.TouchAccesses(t, others, lab.AnswerLimit) }()
	hung := r.TouchAccesses(t, stale, lab.TouchLimit/3)
	answered := <-ended
	touches := make([]lab.Touch, 0, len(lab.Accesses))
	for _, a := range lab.Accesses {
		list := &answered
		if a.Stale {
			list = &hung
		}
		touches, *list = append(touches, (*list)[0]), (*list)[1:]
	}
	return touches
}

// TestNumbersChange checks the laboratory: a mount that gets its old number by chance
// would look repaired.
func TestNumbersChange(t *testing.T) {
	s := checkpoint(t)
	before := s.autofs
	r := restoreStale(t, s)
	after := lab.Autofs(t, r.PID)
	lowest := 1 << 20
	for path, m := range before {
		lowest = min(lowest, m.Minor)
		if after[path] == nil {
			t.Errorf("%s: not restored", path)
		}
	}
	for path, m := range after {
		if m.Minor >= lowest {
			t.Errorf("%s: device 0:%d after the restore, not below 0:%d, the lowest before", path, m.Minor, lowest)
		}
	}
}
