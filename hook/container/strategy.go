package container

// Strategy limits the cures for mounts that a systemd serves.
type Strategy string

const (
	// Auto tries all cures, the mildest first.
	Auto Strategy = "auto"
	// ReexecOnly makes systemd re-execute itself, even without evidence that it was
	// restored, and restarts no unit.
	ReexecOnly Strategy = "reexec"
	// RestartOnly restarts units without a re-execution first.
	RestartOnly Strategy = "restart"
)
