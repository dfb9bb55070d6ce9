package container

import (
	"fmt"
	"slices"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/waiters"
)

// FindWaiters returns the waiters among the container's processes.
func (c *Container) FindWaiters() ([]Waiter, error) { return waiters.Find(c.Members) }

// WaitersOn returns the waiters whose path is at or below the given one.
func WaitersOn(list []Waiter, path string) []Waiter {
	var found []Waiter
	for _, w := range list {
		if w.On(path) {
			found = append(found, w)
		}
	}
	return found
}

// WaitersInside returns the waiters without those on a mount whose master is outside.
func WaitersInside(list []Waiter, mounts []Mount) []Waiter {
	return WaitersExcept(list, mounts, func(i int) bool { return mounts[i].Outside() })
}

// WaitersExcept deletes the waiters on a mount that is excepted, by its index. A waiter's
// mount is the one with the longest mount point that its path is below. In doubt a waiter
// stays: its path may be unknown, or lead through a link.
func WaitersExcept(list []Waiter, mounts []Mount, excepted func(mount int) bool) []Waiter {
	return slices.DeleteFunc(list, func(w Waiter) bool {
		longest, except := -1, false
		for i := range mounts {
			switch length := len(mounts[i].Path); {
			case w.Path != "" && !w.On(mounts[i].Path):
			case w.Path == "" || length == longest:
				except = excepted(i) && (except || longest < 0)
				longest = length
			case length > longest:
				longest, except = length, excepted(i)
			}
		}
		return except
	})
}

// NameWaiters returns the pids and commands of waiters, for an error.
func NameWaiters(list []Waiter) string {
	var names []string
	for _, w := range list {
		names = append(names, fmt.Sprintf("process %d (%q)", w.PID, w.Command))
	}
	return strings.Join(names, ", ")
}
