// Package stage names the stages of a restore at which there is work.
package stage

// Name is one of the four points of a restore at which the program works.
type Name string

const (
	// Reserve is before the restored processes exist.
	Reserve Name = "reserve"
	// Prepare is when the container's control group is known: its mounts exist, of its
	// processes only the first one does.
	Prepare Name = "prepare"
	// Preserve is when all mounts are final and all processes are stopped.
	Preserve Name = "preserve"
	// Repair is when the processes run again.
	Repair Name = "repair"
)
