package container

import (
	"fmt"
	"slices"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/waiters"
)

// FindWaiters returns the waiters among the container's processes.
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

// WaitersOn returns the waiters whose path is at or below the given one.
func WaitersOn(list []Waiter, path string) []Waiter {
	var found []Waiter
	for _, w := range list {
		if w.Path == path || strings.HasPrefix(w.Path, path+"/") {
			found = append(found, w)
		}
	}
	return found
}

// WaitersInside returns the waiters without those on a mount whose master is outside. A
// waiter's mount is the one with the longest mount point that its path is below.
func WaitersInside(list []Waiter, mounts []Mount) []Waiter {
	return slices.DeleteFunc(list, func(w Waiter) bool {
		longest, outside := -1, false
		for i := range mounts {
			m := &mounts[i]
			switch length := len(m.Path); {
			case w.Path != "" && len(WaitersOn([]Waiter{w}, m.Path)) == 0:
			case w.Path == "" || length == longest: // in doubt the waiter stays
				outside = m.Outside() && (outside || longest < 0)
				longest = length
			case length > longest:
				longest, outside = length, m.Outside()
			}
		}
		return outside
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
