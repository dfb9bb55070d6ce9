package cure

import (
	"slices"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
)

// TestCoveredLast: mounts that nothing covers are restarted first, but none before
// one that it lies below.
func TestCoveredLast(t *testing.T) {
	w := &Repair{snapshot: &container.Snapshot{Mounts: []container.Mount{
		{Path: "/a", Covers: []container.Cover{{ID: 1}}},
		{Path: "/b"},
		{Path: "/a/c"},
		{Path: "/ab/d/e"},
		{Path: "/b/x", Covers: []container.Cover{{ID: 2}}},
	}}}
	if got := w.uncoveredFirst([]int{0, 1, 2, 3, 4}); !slices.Equal(got, []int{1, 3, 0, 2, 4}) {
		t.Errorf("%v", got)
	}
	if got := w.uncoveredFirst(nil); got != nil {
		t.Errorf("%v", got)
	}
}
