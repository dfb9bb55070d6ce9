package container

import (
	"fmt"
	"slices"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/waiters"
)

// FindWaiters finds the processes that wait on an automount.
func (c *Container) FindWaiters() ([]Waiter, error) {
	found, err := waiters.Find(c.Members)
	if err != nil {
		return nil, err
	}
	var list []Waiter
	for _, w := range found {
		list = append(list, Waiter{PID: w.PID, Command: w.Command, Path: w.Path, Process: w.Process, Start: w.ProcessStart})
	}
	return list, nil
}

// WaitersOn returns the waiters that want something at or below a path.
func WaitersOn(list []Waiter, path string) []Waiter {
	var found []Waiter
	for _, w := range list {
		if w.Path == path || strings.HasPrefix(w.Path, path+"/") {
			found = append(found, w)
		}
	}
	return found
}

// WaitersInside leaves out the processes that wait on a mount that is served from
// outside. The path of a waiter says on which mount it waits: the last one on it.
func WaitersInside(list []Waiter, mounts []Mount) []Waiter {
	return slices.DeleteFunc(list, func(w Waiter) bool {
		longest, outside := -1, false
		for i := range mounts {
			m := &mounts[i]
			switch length := len(m.Path); {
			case w.Path != "" && len(WaitersOn([]Waiter{w}, m.Path)) == 0:
			case w.Path == "" || length == longest: // in doubt it counts
				outside = m.Outside() && (outside || longest < 0)
				longest = length
			case length > longest:
				longest, outside = length, m.Outside()
			}
		}
		return outside
	})
}

// NameWaiters lists waiters for an error.
func NameWaiters(list []Waiter) string {
	var names []string
	for _, w := range list {
		names = append(names, fmt.Sprintf("process %d (%q)", w.PID, w.Command))
	}
	return strings.Join(names, ", ")
}
