package cure

import (
	"context"
	"errors"
	"fmt"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
)

var errNotRestarted = errors.New("systemd did not restart the unit")

var errCoversKept = errors.New("its covers are kept for a day: run repair again")

// restart restarts the unit of a systemd automount. The covers of the mount are
// kept in a mount namespace of our own and put back; processes that wait on the
// old mount are released.
//
// A restart recreates the mount in the main mount namespace only. Copies of it are
// put into the namespaces that it does not propagate to.
func (w *Repair) restart(ctx context.Context, i int) error {
	m := &w.snapshot.Mounts[i]
	manager, err := w.container.Manager(ctx, m.Master.PID)
	if err != nil {
		return err
	}
	main := w.container.Main()
	var covers *savedCovers
	if len(m.Covers) > 0 {
		if covers, err = w.saveCovers(ctx, main.Process, m); err != nil {
			return err
		}
	}
	intent, err := journal.UnitRestarts.Begin(w.journal, w.container.Init, journal.UnitRestart{Path: m.Path, Device: m.Device}, m.ID)
	if err != nil {
		if covers != nil {
			err = errors.Join(err, covers.drop(ctx))
		}
		return err
	}
	restartErr := manager.Restart(ctx, m.Master.Unit)
	fresh, err := w.freshMount(m)
	if !errors.Is(err, errNotRestarted) {
		// Not the one that systemd still serves: without a writer of its pipe
		// systemd would give the unit up, and detach all that is there.
		w.releaseWaiters(m)
	}
	if err != nil {
		if covers != nil {
			err = errors.Join(err, errCoversKept, covers.keep()) // the next run tries again
		}
		return errors.Join(restartErr, err)
	}
	if covers != nil {
		if err := covers.kept.PutBack(ctx, main.Process, fresh); err != nil {
			return errors.Join(restartErr, err, errCoversKept, covers.keep())
		}
		restartErr = errors.Join(restartErr, covers.drop(ctx))
	}
	if err := w.copyElsewhere(ctx, m.Path, m.Device, fresh, w.spaceOf(nil).copyFunc(ctx, m.Path, fresh)); err != nil {
		return errors.Join(restartErr, err) // the next run tries again
	}
	return errors.Join(restartErr, intent.Commit())
}

// freshMount returns the device number of the autofs mount that is at the path
// now, after its unit was restarted.
func (w *Repair) freshMount(m *container.Mount) (uint64, error) {
	if err := w.container.ReadTables(); err != nil {
		return 0, err
	}
	var err error
	for _, now := range w.container.Main().Table.Autofs() {
		switch {
		case now.Mountpoint != m.Path:
		case now.ID != m.ID:
			return mounts.DeviceOf(now), nil
		default:
			err = fmt.Errorf("%w: its old mount is still at %q", errNotRestarted, m.Path)
		}
	}
	if err != nil {
		return 0, err
	}
	return 0, fmt.Errorf("after the restart of %s no autofs mount is at %q: see \"systemctl status %s\" in the container",
		m.Master.Unit, m.Path, m.Master.Unit)
}
