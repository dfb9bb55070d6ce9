package container

import "github.com/autofs-restore-hook/autofs-restore-hook/nsenter"

// OpenEngine opens the parent process of CRIU, into whose control groups helpers move;
// nil if it has ended.
func OpenEngine(criu *nsenter.Process) *nsenter.Process {
	engine, err := criu.OpenParent()
	if err != nil {
		return nil
	}
	return engine
}
