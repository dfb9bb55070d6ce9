package cure

import (
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
)

// Session is one run on one container.
type Session struct {
	container *container.Container
	journal   journal.Store
	warn      func(error)
	// parkings are the known parking mounts for triggers.
	parkings []*parking
}

// NewSession returns a session on a container. warn, never nil, gets errors that do not
// end the run.
func NewSession(c *container.Container, journal journal.Store, warn func(error)) *Session {
	return &Session{container: c, journal: journal, warn: warn}
}

// Close closes this process's files of parking mounts. Their helpers have copies.
func (s *Session) Close() {
	for _, p := range s.parkings {
		p.closeFiles()
	}
}
