// Package stage knows at which of CRIU's stages there is work, and ends the
// program at all others: CRIU calls it at every stage of every dump and restore
// of the machine. So it does where an OCI runtime calls it at a fresh start.
//
// It does so before the packages that do the work are initialized, which is why
// it imports only os and syscall: Go initializes packages in the order of their names, each
// as soon as those that it imports are ready.
package stage

import "os"

// EnvAction is the environment variable with which CRIU calls an action script
// (criu/action-scripts.c). It holds the stage.
const EnvAction = "CRTOOLS_SCRIPT_ACTION"

// The stages of a restore at which there is work.
const (
	PreRestore          = "pre-restore"
	PostSetupNamespaces = "post-setup-namespaces"
	PreResume           = "pre-resume"
	PostResume          = "post-resume"
)

// Ours reports whether anything is done at a stage.
func Ours(action string) bool {
	return action == PreRestore || action == PostSetupNamespaces || action == PreResume || action == PostResume
}

func init() {
	if action := os.Getenv(EnvAction); action != "" && len(os.Args) == 1 && !Ours(action) {
		os.Exit(0)
	}
	endAtFreshStart()
}
