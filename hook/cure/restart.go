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

// restart restarts the unit of a systemd automount. The covers of the mount are saved in
// a separate mount namespace and restored; the waiters on the old mount are released.
//
// systemd recreates the mount in the main mount namespace only. It is copied to the
// namespaces to which it does not propagate.
func (r *Repair) restart(ctx context.Context, i int) error {
	m := &r.snapshot.Mounts[i]
	manager, err := r.container.Manager(ctx, m.Master.PID)
	if err != nil {
		return err
	}
	main := r.container.Main()
	var covers *savedCovers
	if len(m.Covers) > 0 {
		if covers, err = r.saveCovers(ctx, main.Process, m); err != nil {
			return err
		}
	}
	intent, err := journal.UnitRestarts.Begin(r.journal, r.container.Init, journal.UnitRestart{Path: m.Path, Device: m.Device}, m.ID)
	if err != nil {
		if covers != nil {
			err = errors.Join(err, covers.drop(ctx))
		}
		return err
	}
	restartErr := manager.Restart(ctx, m.Master.Unit)
	newDevice, err := r.newDevice(m)
	if !errors.Is(err, errNotRestarted) {
		// A release closes the write end of the pipe. If systemd still served the mount,
		// the unit would fail, and systemd would detach all mounts at its path.
		r.releaseWaiters(m)
	}
	if err != nil {
		if covers != nil {
			err = errors.Join(err, errCoversKept, covers.keep()) // the next run tries again
		}
		return errors.Join(restartErr, err)
	}
	if covers != nil {
		if err := covers.copies.Restore(ctx, main.Process, newDevice); err != nil {
			return errors.Join(restartErr, err, errCoversKept, covers.keep())
		}
		restartErr = errors.Join(restartErr, covers.drop(ctx))
	}
	if err := r.copyElsewhere(ctx, m.Path, m.Device, newDevice, r.mainSpace().copyFunc(ctx, m.Path, newDevice)); err != nil {
		return errors.Join(restartErr, err) // the next run tries again
	}
	return errors.Join(restartErr, intent.Commit())
}

// newDevice returns the st_dev of the autofs mount at the path of m after the restart of
// its unit. The error is errNotRestarted if it is still the old mount.
func (r *Repair) newDevice(m *container.Mount) (uint64, error) {
	if err := r.container.ReadTables(); err != nil {
		return 0, err
	}
	var err error
	for _, now := range r.container.Main().Table.Autofs() {
		switch {
		case now.Mountpoint != m.Path:
		case now.ID != m.ID:
			return mounts.DeviceOf(now), nil
		default:
			err = fmt.Errorf("%w: its old mount is still at %q; see \"systemctl status %s\" in the container", errNotRestarted, m.Path, m.Master.Unit)
		}
	}
	if err != nil {
		return 0, err
	}
	return 0, fmt.Errorf("after the restart of %s no autofs mount is at %q: see \"systemctl status %s\" in the container",
		m.Master.Unit, m.Path, m.Master.Unit)
}
