package hook

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
)

// restartPatience is how long everything else stays frozen for a restart, which
// takes a few milliseconds. A restart that takes longer stops services: what is
// frozen does not stop.
const restartPatience = 200 * time.Millisecond

// restart restarts the unit of a systemd automount. What covers the mount is
// kept in a mount namespace of our own and put back; who waits on the old mount
// is let go.
func (w *work) restart(ctx context.Context, i int) error {
	m := &w.snapshot.Mounts[i]
	manager, err := w.scene.manager(ctx, m.Master.PID)
	if err != nil {
		return err
	}
	main := w.scene.main()
	var covers *keeping
	if len(m.Covers) > 0 {
		if covers, err = w.store.keep(ctx, w.scene.init, main.process, m); err != nil {
			return err
		}
	}
	patience := time.AfterFunc(restartPatience, w.thaw)
	restartErr := manager.Restart(ctx, m.Master.Unit)
	patience.Stop()
	w.release(m)
	fresh, err := w.freshMount(m)
	if err != nil {
		if covers != nil {
			err = errors.Join(err, covers.leave()) // the next run tries again
		}
		return errors.Join(restartErr, err)
	}
	if covers != nil {
		if err := covers.kept.PutBack(ctx, main.process, fresh); err != nil {
			return errors.Join(restartErr, err, covers.leave())
		}
		restartErr = errors.Join(restartErr, covers.drop(ctx))
	}
	return errors.Join(restartErr, w.renewElsewhere(ctx, m, fresh))
}

// renewElsewhere puts the mount that systemd has made anew into the mount
// namespaces that it does not propagate to, in the place of the old one.
func (w *work) renewElsewhere(ctx context.Context, m *Mount, fresh uint64) error {
	if err := w.scene.readTables(); err != nil {
		return err
	}
	var others []mounts.Space
	for _, sp := range w.scene.mountSpaces() {
		if sp.Shows(m.Path, m.Device) {
			others = append(others, sp)
		}
	}
	if len(others) == 0 {
		return nil
	}
	copied, err := mounts.CopyOfAutofs(ctx, w.scene.main().process, m.Path, fresh)
	if err != nil {
		return err
	}
	defer copied.Close()
	r := &mounts.Replacement{Path: m.Path, Old: m.Device, New: copied, Device: fresh}
	return errors.Join(mounts.Replace(ctx, others, []*mounts.Replacement{r}), r.Err)
}

// freshMount returns the device number of the autofs mount that is at the path
// now, after its unit was restarted.
func (w *work) freshMount(m *Mount) (uint64, error) {
	if err := w.scene.readTables(); err != nil {
		return 0, err
	}
	for _, now := range w.scene.main().table.Autofs() {
		if now.Mountpoint == m.Path && now.ID != m.ID {
			return mounts.DeviceOf(now), nil
		}
	}
	return 0, fmt.Errorf("after the restart of %s no autofs mount is at %q: see \"systemctl status %s\" in the container",
		m.Master.Unit, m.Path, m.Master.Unit)
}
