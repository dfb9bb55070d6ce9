package freezer

import (
	"context"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
)

func freeze(t *testing.T, r Request) *Frozen {
	t.Helper()
	f, err := Freeze(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Thaw() })
	return f
}

func expectThaw(t *testing.T, f *Frozen) {
	t.Helper()
	if err := f.Thaw(); err != nil {
		t.Error(err)
	}
	if left := guards(t); len(left) != 0 {
		t.Errorf("guards are left: %v", left) // reaped too, when this process started them
	}
}

// TestFreeze: all groups of the members stop, again and again, and no guard is
// left.
func TestFreeze(t *testing.T) {
	eachVersion(t, func(t *testing.T, h hierarchy) {
		outer, other := h.group(t), h.group(t)
		inner := below(t, outer)
		list := []*testenv.Child{h.spin(t, outer), h.spin(t, outer), h.spin(t, inner), h.spin(t, other)}
		for range 2 {
			f := freeze(t, Request{Members: members(list...)})
			if n := len(guards(t)); n != 1 {
				t.Errorf("%d guards", n)
			}
			expectStopped(t, list...)
			expectThaw(t, f)
			expectRunning(t, list...)
		}
	})
}

// TestSpare: the group of a spared process goes on.
func TestSpare(t *testing.T) {
	eachVersion(t, func(t *testing.T, h hierarchy) {
		first, second := h.group(t), h.group(t)
		stopped, spared, beside := h.spin(t, first), h.spin(t, second), h.spin(t, second)
		f := freeze(t, Request{Members: members(stopped, spared, beside), Spare: pids(spared)})
		expectStopped(t, stopped)
		expectRunning(t, spared, beside)
		expectThaw(t, f)
		expectRunning(t, stopped)
	})
}

// TestShared: a group that holds anybody else is not frozen, nor is any other.
func TestShared(t *testing.T) {
	eachVersion(t, func(t *testing.T, h hierarchy) {
		clean, shared := h.group(t), h.group(t)
		nested := below(t, shared)
		member, with := h.spin(t, clean), h.spin(t, shared)
		for name, dir := range map[string]string{"beside": shared, "below": nested} {
			foreign := h.spin(t, dir)
			expectRefused(t, Request{Members: members(member, with)}, attempts, member, with, foreign)
			if t.Failed() {
				t.Errorf("a foreign process %s", name)
			}
			foreign.End()
		}
		// With the foreign ones gone nothing speaks against it.
		f := freeze(t, Request{Members: members(member, with)})
		expectStopped(t, member, with)
		expectThaw(t, f)
	})
}

// expectRefused: ErrShared after as many looks, and everybody goes on.
func expectRefused(t *testing.T, r Request, looks int, list ...*testenv.Child) {
	t.Helper()
	asked, ask := 0, r.Members
	r.Members = func() ([]int, error) { asked++; return ask() }
	f, err := Freeze(context.Background(), r)
	if !errors.Is(err, ErrShared) || f != nil || asked != looks {
		t.Errorf("%v, %v after %d looks, want %v after %d", f, err, asked, ErrShared, looks)
	}
	expectRunning(t, list...)
	if left := guards(t); len(left) != 0 {
		t.Errorf("guards %v", left)
	}
}

// TestAboveSpared: version 1 and 2 freeze what is below a group with it, so one
// above a spared process is left alone.
func TestAboveSpared(t *testing.T) {
	eachVersion(t, func(t *testing.T, h hierarchy) {
		outer := h.group(t)
		member, spared := h.spin(t, outer), h.spin(t, below(t, outer))
		expectRefused(t, Request{Members: members(member, spared), Spare: pids(spared)}, attempts, member, spared)
		// Below a spared one is another matter.
		f := freeze(t, Request{Members: members(member, spared), Spare: pids(member)})
		expectStopped(t, spared)
		expectRunning(t, member)
		expectThaw(t, f)
	})
}

// TestNothingToFreeze: no members, only spared ones, or only ended ones.
func TestNothingToFreeze(t *testing.T) {
	eachVersion(t, func(t *testing.T, h hierarchy) {
		dir := h.group(t)
		spared, ended := h.spin(t, dir), h.spin(t, dir)
		ended.End()
		expectRefused(t, Request{Members: members()}, attempts)
		expectRefused(t, Request{Members: members(ended)}, attempts)
		expectRefused(t, Request{Members: members(spared), Spare: pids(spared)}, attempts, spared)
		// An ended one beside a living one does not matter.
		f := freeze(t, Request{Members: members(ended, spared), Spare: pids(ended)})
		expectStopped(t, spared)
		expectThaw(t, f)
	})
}

// TestForked: a process that was started after the first look is a member at
// the second.
func TestForked(t *testing.T) {
	h := newHierarchy(t, 2)
	dir := h.group(t)
	parent, forked := h.spin(t, dir), h.spin(t, dir)
	looks := 0
	f := freeze(t, Request{Members: func() ([]int, error) {
		if looks++; looks == 1 {
			return pids(parent), nil
		}
		return pids(parent, forked), nil
	}})
	expectStopped(t, parent, forked)
	expectThaw(t, f)
	if looks != 2 {
		t.Errorf("%d looks", looks)
	}
	gone := errors.New("gone")
	if f, err := Freeze(context.Background(), Request{Members: func() ([]int, error) { return nil, gone }}); !errors.Is(err, gone) || f != nil {
		t.Errorf("%v, %v", f, err)
	}
}

// TestVersion2Only: groups of version 1 are left alone, those of version 2 not.
func TestVersion2Only(t *testing.T) {
	first, second := newHierarchy(t, 1), newHierarchy(t, 2)
	old := first.spin(t, first.group(t))
	expectRefused(t, Request{Members: members(old), Version2Only: true}, attempts, old)
	both := second.spin(t, second.group(t))
	f := freeze(t, Request{Members: members(both), Version2Only: true})
	expectStopped(t, both)
	expectThaw(t, f)
}

// TestGroupGone: version 2 lets frozen processes be killed; the thaw of a group
// that has been removed is no error.
func TestGroupGone(t *testing.T) {
	h := newHierarchy(t, 2)
	stays, goes := h.group(t), h.group(t)
	living, killed := h.spin(t, stays), h.spin(t, goes)
	f := freeze(t, Request{Members: members(living, killed)})
	killed.End()
	testenv.Eventually(t, "an empty group", func() bool { return unix.Rmdir(goes) == nil })
	if resumed := Resume(Ref{Groups: []string{stays, goes}}); len(resumed.groups) != 1 {
		t.Errorf("%d groups of which one is gone", len(resumed.groups))
	} else {
		resumed.close()
	}
	expectThaw(t, f)
	expectRunning(t, living)
	if err := f.Thaw(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a second time: %v", err)
	}
}
