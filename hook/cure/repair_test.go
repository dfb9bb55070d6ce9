package cure

import (
	"slices"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
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
