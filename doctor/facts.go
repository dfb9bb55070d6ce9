package doctor

import "github.com/autofs-restore-hook/autofs-restore-hook/install"

// Facts are observations of a machine.
type Facts struct {
	// Version is that of the program that looks.
	Version string

	Root bool
	// InitialUser and InitialPID are whether the namespaces are the machine's own.
	InitialUser, InitialPID bool
	// Missing are capabilities that the program needs and does not have.
	Missing []string

	Kernel string // its release
	// Autofs is whether the kernel has it, and Device why /dev/autofs cannot be
	// opened, "" if it can.
	Autofs bool
	Device string
	// Features of the kernel are those that the cures need.
	Features []Feature

	// Cgroup is the version, "1", "2" or "1+2" (both, with 2 below unified).
	Cgroup string
	// Security names the active security modules: "SELinux, enforcing", "AppArmor".
	Security []string

	Survey *install.Survey
	// Reports are the newest ones, the newest first.
	Reports []Report
}

// Feature is something that the kernel can do, or not.
type Feature struct {
	ID    string
	Name  string
	Error string // "" if it can
	// Needed says what cannot be done without it. Without an essential one nothing can
	// be repaired.
	Needed    string
	Essential bool
}

// Report is the report of an earlier repair.
type Report struct {
	Container string   `json:"container"`
	PID       int      `json:"pid"`
	Outcome   string   `json:"outcome"`
	Error     string   `json:"error"`
	Warnings  []string `json:"warnings"`
}
