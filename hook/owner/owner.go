package owner

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// ErrOutside means that a process does not belong to the container.
var ErrOutside = errors.New("the process is not one of the container's")

// maxDepth bounds the walk to the first process: the container decides how deep its tree
// is.
const maxDepth = 1 << 12

// Container decides which processes belong to a container.
type Container struct{ init *nsenter.Process }

// Of returns the container with the given first process, which the caller closes after the
// last use of the container.
func Of(init *nsenter.Process) *Container { return &Container{init: init} }

// Member is a process of the container. Only [Container.Admit] makes one, and functions
// that act on masters take nothing else.
type Member struct {
	*nsenter.Process
	container *Container
}

// Init is the container's first process as a member.
func (c *Container) Init() *Member { return &Member{Process: c.init, container: c} }

// Admit returns the Member for a process of the container; for any other the error is
// ErrOutside. It neither contacts the process nor opens its files.
func (c *Container) Admit(p *nsenter.Process) (*Member, error) {
	m := &Member{Process: p, container: c}
	if err := m.Check(); err != nil {
		return nil, err
	}
	return m, nil
}

// Check checks again that the process is the container's. A process can enter another
// mount namespace, and can lose its parent.
func (m *Member) Check() error {
	err := m.CheckForeign()
	if errors.Is(err, nsenter.ErrOwnNamespace) {
		return fmt.Errorf("process %d: %w: it is in the host's mount namespace", m.PID(), ErrOutside)
	}
	if err == nil {
		err = m.descends()
	}
	return err
}

// Signal sends a signal, if the process is still the container's.
func (m *Member) Signal(sig unix.Signal) error {
	if err := m.Check(); err != nil {
		return err
	}
	return m.Process.Signal(sig)
}

// descends walks from parent to parent up to the first process.
func (m *Member) descends() error {
	child, own := m.Process, false // whether the walk opened it
	defer func() {
		if own {
			child.Close()
		}
	}()
	for range maxDepth {
		if child.PID() == m.container.init.PID() && m.container.init.Alive() == nil {
			return nil // while that lives, no other process has its number
		}
		parent, err := child.OpenParent()
		if err != nil {
			return err
		}
		if parent == nil {
			break
		}
		if own {
			child.Close()
		}
		child, own = parent, true
	}
	return fmt.Errorf("process %d: %w: it does not descend from process %d", m.PID(), ErrOutside, m.container.init.PID())
}
