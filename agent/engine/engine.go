// Package engine watches a node's container engine, containerd or CRI-O, for
// restored containers.
package engine

import "time"

// Notice is what an engine says about a container that was restored, or may
// have been.
type Notice struct {
	Namespace string // containerd's, "" for CRI-O
	Container string
	PID       int
	// Started is when the engine said that the container runs; zero if the
	// container was found among running ones.
	Started time.Time
}

// Handler receives notices. Its methods return at once.
type Handler interface {
	// Restored is called for each container that the engine says was restored,
	// when it runs.
	Restored(Notice)
	// Running is called for running containers that may have been restored.
	Running(Notice)
}
