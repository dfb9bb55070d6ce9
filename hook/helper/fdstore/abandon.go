package fdstore

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Abandon is Stop without waiting: the files are closed a little later.
func (r Ref) Abandon() error {
	p, err := r.process()
	if errors.Is(err, ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer p.Close()
	if err := p.Signal(unix.SIGKILL); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
