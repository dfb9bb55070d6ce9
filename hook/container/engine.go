package container

import "github.com/autofs-restore-hook/autofs-restore-hook/nsenter"

// OpenEngine opens the process that has started CRIU, to whose control groups our
// helpers move; nil if it is gone, and they stay where they are.
func OpenEngine(criu *nsenter.Process) *nsenter.Process {
	engine, err := criu.OpenParent()
	if err != nil {
		return nil
	}
	return engine
}
