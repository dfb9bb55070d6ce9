package cure

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/automount"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/park"
)

// removeWaitersParking removes the parking mount of an interrupted run that was
// parking waiters: it may still be on mounts. The helper of that run has released
// the processes in it.
func (s *Session) removeWaitersParking(ctx context.Context) error {
	intent := journal.WaitersParked.Of(s.journal, s.container.Init)
	parked, err := intent.Load()
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for i := range s.container.Spaces {
		// It goes from some namespaces with the others': each is read when it is its turn.
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

// removeViaDaemon removes a parking mount from a mount that a process still waits
// on, which we cannot open therefore: its daemon opens it.
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
		files, err := automount.OpenRoots(ctx, daemon, []automount.Root{{Path: path, Device: device}})
		if err != nil {
			return err
		}
		defer files[0].Close()
		return park.Detach(ctx, sp.Process, files[0])
	}
	return fmt.Errorf("%q: a process waits on the mount beneath, and no automount daemon serves it", path)
}
