package cure

import (
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
)

// Session is the work of one run on one container.
type Session struct {
	container *container.Container
	journal   journal.Store
	warn      func(error)
	// parkings are the parking mounts for triggers that are known.
	parkings []*parking
}

// NewSession starts the work on a container; warn, never nil, gets what goes wrong
// without ending the run.
func NewSession(c *container.Container, journal journal.Store, warn func(error)) *Session {
	return &Session{container: c, journal: journal, warn: warn}
}

// Close closes the files of parking mounts: their helpers have their own.
func (s *Session) Close() {
	for _, p := range s.parkings {
		p.closeOwn()
	}
}
