package hook

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/park"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// A run that is killed while it brings processes into a gate may leave the gate
// on mounts. So it notes the gate's device number first.

var gateNote = noteKind{"containers", ".gate", "note of a gate"}

// announceGate notes the st_dev of a gate that is about to be used.
func (s store) announceGate(init *nsenter.Process, device uint64) error {
	n := gateNote.of(s, init)
	if n.exists() {
		return errBegun // with another gate, which no run would find without it
	}
	return n.write([]byte(strconv.FormatUint(device, 10)))
}

// forgetGate takes the note away: the gate is gone.
func (s store) forgetGate(init *nsenter.Process) error {
	return gateNote.of(s, init).remove()
}

// finishGate takes away what a killed run has left of its gate. The run's guard
// has released the processes that waited in it.
func (s store) finishGate(ctx context.Context, sc *scene) error {
	n := gateNote.of(s, sc.init)
	data, err := n.read()
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	device, err := strconv.ParseUint(string(data), 10, 64)
	if err != nil {
		return errors.Join(n.unusable(err), n.remove())
	}
	var errs []error
	for i := range sc.spaces {
		// It goes from some namespaces with the others': each is read when it is its turn.
		if err := sc.readTables(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		sp := sc.spaces[i]
		if sp.table == nil {
			continue
		}
		for _, m := range sp.table.Autofs() {
			if m.Source == park.Source && mounts.DeviceOf(m) == device {
				err := park.Remove(ctx, sp.process, m.Mountpoint, device)
				if err != nil {
					err = sc.removeThrough(ctx, sp, m.Mountpoint, device)
				}
				errs = append(errs, err)
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("take away the gate of a run that was killed: %w", err)
	}
	return errors.Join(n.remove(), sc.readTables())
}

// removeThrough takes away a gate from a mount that a process still waits on, and
// that is closed to us therefore: its daemon opens the gate.
func (s *scene) removeThrough(ctx context.Context, sp *space, path string, device uint64) error {
	list, err := s.survey()
	if err != nil {
		return err
	}
	for i := range list {
		m := &list[i]
		daemon := s.masters[m.Master.PID]
		if m.Path != path || m.Namespace != sp.id || m.Master.Kind != master.Automount || daemon == nil {
			continue
		}
		files, err := master.OpenRoots(ctx, daemon, []master.Root{{Path: path, Device: device}})
		if err != nil {
			return err
		}
		defer files[0].Close()
		return park.Detach(ctx, sp.process, files[0])
	}
	return fmt.Errorf("%q: a process waits on the mount beneath, and no automount daemon serves it", path)
}
