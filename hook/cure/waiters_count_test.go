package cure

import (
	"slices"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
)

// TestWaitersExcept: the mount with the longest path decides about a waiter.
func TestWaitersExcept(t *testing.T) {
	paths := []string{"/a", "/a/served", "/a/served/stale", "/b", "/b"}
	cures := []plan.Cure{plan.Reexecuted, plan.Preserved, plan.Unrepaired, plan.Healthy, plan.Reloaded}
	waiters := map[string]bool{ // by path; whether it stays
		"/a/file": true, "/a/served": false, "/a/served/file": false, "/a/served/stale/file": true,
		"/b/file": true, // of two mounts one is not settled
		"/link":   true, "": true,
	}
	r := &Repair{snapshot: &container.Snapshot{}}
	for i, path := range paths {
		r.snapshot.Mounts = append(r.snapshot.Mounts, container.Mount{Path: path})
		r.Plan = append(r.Plan, plan.Decision{Cure: cures[i]})
	}
	for path := range waiters {
		r.snapshot.Waiters = append(r.snapshot.Waiters, container.Waiter{Path: path})
	}
	settled := func(c plan.Cure) bool { return c == plan.Healthy || c == plan.Preserved }
	stays := r.waitersExcept(settled)
	for path, want := range waiters {
		if slices.ContainsFunc(stays, func(w container.Waiter) bool { return w.Path == path }) != want {
			t.Errorf("the waiter at %q stays: %t, want %t", path, !want, want)
		}
	}
	if stays := r.waitersExcept(func(plan.Cure) bool { return true }); stays != nil {
		t.Errorf("all mounts are settled: %+v", stays)
	}
}
