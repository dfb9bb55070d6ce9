package cure

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/automount"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/park"
)

// removeWaiterParking removes the parking mount for waiters of an interrupted run from all
// mounts. The helper of that run has released the processes in it.
func (s *Session) removeWaiterParking(ctx context.Context) error {
	intent := journal.WaiterParkings.Of(s.journal, s.container.Init)
	parked, err := intent.Load()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for i := range s.container.Spaces {
		// An unmount may propagate to the next namespaces: their tables are read again.
		if err := s.container.ReadTables(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		sp := s.container.Spaces[i]
		if sp.Table == nil {
			continue
		}
		for _, m := range sp.Table.Autofs() {
			if m.Source != park.Source || mounts.DeviceOf(m) != parked.Device {
				continue
			}
			err := park.Remove(ctx, sp.Process, m.Mountpoint, parked.Device)
			if err != nil {
				err = s.removeViaDaemon(ctx, sp, m.Mountpoint, parked.Device)
			}
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove the parking mount of an interrupted run: %w", err)
	}
	return errors.Join(intent.Commit(), s.container.ReadTables())
}

// removeViaDaemon removes a parking mount from a mount that still has a waiter. Only its
// daemon can open such a mount, and is made to.
func (s *Session) removeViaDaemon(ctx context.Context, sp *container.Space, path string, device uint64) error {
	list, err := s.container.Survey()
	if err != nil {
		return err
	}
	for i := range list {
		m := &list[i]
		daemon := s.container.Masters[m.Master.PID]
		if m.Path != path || m.Namespace != sp.ID || m.Master.Kind != master.Automount || daemon == nil {
			continue
		}
		files, err := automount.OpenBlockedRoots(ctx, daemon, []automount.Root{{Path: path, Device: device}})
		if err != nil {
			return err
		}
		defer files[0].Close()
		return park.Detach(ctx, sp.Process, files[0])
	}
	return fmt.Errorf("%q: the mount beneath has a waiter, and no automount daemon serves it: end the waiter, then repair again", path)
}
