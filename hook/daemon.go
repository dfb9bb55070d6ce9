package hook

import (
	"context"
)

// respawn ends an automount daemon and has its service start a new one, which
// takes over all the mounts that exist. A new daemon would hang in its own
// start on a direct mount that somebody waits on. So those who did are in a gate
// by now, and whoever came since is let go between the two.
func (w *work) respawn(ctx context.Context, list []int) error {
	first := &w.snapshot.Mounts[list[0]]
	if first.Master.Alone != nil {
		return w.revive(ctx, list)
	}
	manager, err := w.scene.manager(ctx, w.scene.init.PID())
	if err != nil {
		return err
	}
	daemon := w.scene.masters[first.Master.PID]
	if err := w.canRelease(list); err != nil {
		return err
	}
	if err := w.store.noteEnded(w.scene.init, first.Master.Unit, first.Master.ContainerPID); err != nil {
		return err
	}
	if err := manager.Kill(ctx, first.Master.Unit, daemon, first.Master.ContainerPID); err != nil {
		return err
	}
	for _, i := range list {
		w.release(&w.snapshot.Mounts[i])
	}
	if err := manager.Start(ctx, first.Master.Unit, first.Master.ContainerPID); err != nil {
		return err // the next run tries again
	}
	return w.store.forgetEnded(w.scene.init)
}
