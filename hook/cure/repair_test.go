package cure

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
)

// TestUncoveredFirst: mounts without covers are restarted first, but a mount below another
// one after that.
func TestUncoveredFirst(t *testing.T) {
	r := &Repair{snapshot: &container.Snapshot{Mounts: []container.Mount{
		{Path: "/a", Covers: []container.Cover{{ID: 1}}},
		{Path: "/b"},
		{Path: "/a/c"},
		{Path: "/ab/d/e"},
		{Path: "/b/x", Covers: []container.Cover{{ID: 2}}},
	}}}
	if got := r.uncoveredFirst([]int{0, 1, 2, 3, 4}); !slices.Equal(got, []int{1, 3, 0, 2, 4}) {
		t.Errorf("%v", got)
	}
	if got := r.uncoveredFirst(nil); got != nil {
		t.Errorf("%v", got)
	}
}

// TestRestartTooLate: after the end of the run's time no restart begins, and its reason and
// that of the earlier cure are reported.
func TestRestartTooLate(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("too late"))
	r := &Repair{
		Session:  &Session{container: &container.Container{}},
		snapshot: &container.Snapshot{Mounts: []container.Mount{{Path: "/a", Main: true}, {Path: "/b"}}},
		Plan:     []plan.Decision{{Cure: plan.Restarted, Reason: "no state"}, {Cure: plan.Restarted, Reason: "no state"}},
	}
	r.restartAll(ctx, []int{0, 1})
	for _, d := range r.Plan {
		if d.Cure != plan.Unrepaired || !strings.Contains(d.Reason, "no state") || !strings.Contains(d.Reason, "too late") {
			t.Errorf("%+v", d)
		}
	}
}
