package hook

// Moment is one of the four points of a restore at which the program works.
type Moment string

const (
	// Reserve is before the restored processes exist.
	Reserve Moment = "reserve"
	// Prepare is when the container's control group is known and mounts exist.
	Prepare Moment = "prepare"
	// Preserve is when all mounts are final and all processes are stopped.
	Preserve Moment = "preserve"
	// Repair is when the processes run again.
	Repair Moment = "repair"
)
