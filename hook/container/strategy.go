package container

// Strategy says which cures may be tried for mounts that a systemd serves.
type Strategy string

const (
	// Auto tries all cures, the mildest first.
	Auto Strategy = "auto"
	// ReexecOnly has systemd re-execute itself, also where nothing shows that it was
	// restored, and restarts no unit.
	ReexecOnly Strategy = "reexec"
	// RestartOnly restarts units at once.
	RestartOnly Strategy = "restart"
)

// Valid reports whether it is one of the strategies.
func (s Strategy) Valid() bool {
	return s == Auto || s == ReexecOnly || s == RestartOnly
}
