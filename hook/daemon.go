package hook

import (
	"context"
	"errors"
	"time"
)

// daemonPatience is how long everything else stays frozen while a daemon is
// replaced, which takes a tenth of a second. One that takes longer may need a
// service that is frozen: its maps may come from sssd.
const daemonPatience = 500 * time.Millisecond

// startTime is what must be left of the deadline for a daemon to be ended: it
// must be started again.
const startTime = 2 * time.Second

// enoughTime is an error if the deadline is too near for a daemon to be replaced.
func enoughTime(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < startTime {
		return errors.New("not enough time is left to replace its daemon: repair again")
	}
	return nil
}

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
	if err := enoughTime(ctx); err != nil {
		return err
	}
	ended, err := w.store.noteEnded(w.scene.init, first.Master.Unit, daemon.Process, first.Master.ContainerPID)
	if err != nil {
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
	return ended.remove()
}
