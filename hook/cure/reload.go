package cure

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/automount"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/helper/fdstore"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/owner"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/park"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/waiters"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"

	"golang.org/x/sys/unix"
)

const (
	// reloadTime is how long a daemon may take to mount its triggers after a SIGHUP. It
	// normally takes two milliseconds.
	reloadTime = 2 * time.Second
	// reloadInterval is the pause between two signals: a daemon ignores a SIGHUP while it
	// reads its maps because of another one.
	reloadInterval = 300 * time.Millisecond
)

// reloadAll makes each automount daemon mount its stale triggers again. It reports
// whether there was a planned reload.
//
// On SIGHUP a daemon reads its maps again, and mounts a trigger at each key of a direct
// map where it finds none of its own (daemon/state.c, do_readmap). The parking mounts,
// which it walks over, are at these paths before the signal: so there is always a mount
// at each path, and processes that access it wait there.
func (r *Repair) reloadAll(ctx context.Context) bool {
	daemons := map[int][]int{}
	for _, i := range r.mountsWith(plan.Reloaded) {
		pid := r.snapshot.Mounts[i].Master.PID
		daemons[pid] = append(daemons[pid], i)
	}
	for pid, list := range daemons {
		daemon := r.container.Masters[pid]
		offsets := slices.DeleteFunc(slices.Clone(list), func(i int) bool {
			return r.snapshot.Mounts[i].Options.Type != autofs.Offset || r.snapshot.Mounts[i].Parking
		})
		r.reloadOffsets(ctx, daemon, offsets)
		list = slices.DeleteFunc(list, func(i int) bool { return slices.Contains(offsets, i) })
		if len(list) > 0 {
			r.reloadDaemon(ctx, daemon, list)
		}
	}
	return len(daemons) > 0
}

// reloadOffsets detaches the keys of stale offset triggers, so that the next access mounts
// them again.
func (r *Repair) reloadOffsets(ctx context.Context, daemon *owner.Member, list []int) {
	if len(list) == 0 {
		return
	}
	r.openRoots(ctx, list, nil)
	resume := r.parkWaiters(ctx, list)
	defer resume()
	var triggers []*container.Mount
	for _, i := range list {
		triggers = append(triggers, &r.snapshot.Mounts[i])
	}
	results := r.detachUnusedKeys(ctx, daemon, triggers)
	for _, i := range list {
		m := &r.snapshot.Mounts[i]
		if err := results[m.Path]; err != nil {
			r.setUnrepaired(i, err)
			continue
		}
		r.Plan[i].Reason, r.Plan[i].Unmounted = plan.UnmountedReason, true
		r.releaseWaiters(m)
	}
}

// reloadDaemon makes a daemon mount its stale direct triggers again.
func (r *Repair) reloadDaemon(ctx context.Context, daemon *owner.Member, list []int) {
	var before []container.Waiter
	err := automount.CanReload(ctx, daemon.Process)
	if err == nil {
		before, err = r.parkRunning(ctx, daemon, list)
	}
	parkings := r.parkingsOf(daemon)
	if err == nil {
		err = signalAndAwait(ctx, daemon, parkings)
	}
	failed := map[string]error{}
	for _, p := range parkings {
		errs, finishErr := r.finishParking(ctx, daemon, p)
		err = errors.Join(err, finishErr)
		for path, mountErr := range errs {
			failed[path] = mountErr
		}
	}
	r.markRefused(before)
	for _, i := range list {
		if mountErr := errors.Join(err, failed[r.snapshot.Mounts[i].Path]); mountErr != nil {
			r.setUnrepaired(i, mountErr)
		}
	}
}

// parkRunning parks the processes that access triggers of the daemon that Preserve has not
// replaced, while the container runs. It returns the earlier waiters on these triggers.
func (r *Repair) parkRunning(ctx context.Context, daemon *owner.Member, list []int) ([]container.Waiter, error) {
	stale := slices.DeleteFunc(slices.Clone(list), func(i int) bool { return r.snapshot.Mounts[i].Parking })
	if len(stale) == 0 {
		return nil, nil
	}
	r.openRoots(ctx, stale, nil)
	if err := r.checkReleasable(stale); err != nil {
		return nil, err
	}
	token, err := autofs.CurrentToken()
	if err != nil {
		return nil, err
	}
	parkable := r.triggersToPark(stale)
	if triggers := r.unparkedTriggers(daemon, stale); len(triggers) > 0 {
		p, err := r.newParking(ctx, daemon, triggers, fdstore.Request{Bound: r.container.Init, Lifetime: parkTime})
		if err != nil {
			return nil, err
		}
		for i, m := range triggers {
			if err := attachLot(ctx, p.lots[i], parkable, m.Device); err != nil {
				return nil, err
			}
		}
	}
	// From now on no new process can reach the stale triggers.
	before := r.waitersAt(stale)
	park.MoveWaiters(ctx, parkable, token, func() int { return waiters.CountBlocked(before) })
	if err := r.container.ReadTables(); err != nil {
		return before, err
	}
	return before, r.removeCovered(ctx, r.staleMountsOf(daemon))
}

// unparkedTriggers returns the mounts in the daemon's own namespace that no parking mount
// covers.
func (r *Repair) unparkedTriggers(daemon *owner.Member, list []int) []*container.Mount {
	var triggers []*container.Mount
	home, err := daemon.Namespace("mnt")
	for _, i := range list {
		if m := &r.snapshot.Mounts[i]; err == nil && !m.UnderParking && m.Namespace == home.Inode {
			triggers = append(triggers, m)
		}
	}
	return triggers
}

// attachLot attaches a parking mount to a trigger in every namespace that shows it.
func attachLot(ctx context.Context, lot *park.Lot, triggers []park.Trigger, device uint64) error {
	matching := slices.DeleteFunc(slices.Clone(triggers), func(t park.Trigger) bool { return t.Device != device })
	for _, origin := range park.Origins(matching) {
		err := origin.Process.InMountNamespace(context.WithoutCancel(ctx), func(*nsenter.Thread) error {
			attached, err := lot.AttachTo(origin.Root)
			if attached != nil {
				attached.Close()
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// signalAndAwait sends SIGHUP to the daemon, and waits until its triggers are on the
// parking mounts or reloadTime is over. finishParking finds missing triggers.
//
// If a run that was killed has already made the daemon mount all its triggers, it gets no
// signal: in tests a daemon did not answer a request that arrived while it read its maps.
func signalAndAwait(ctx context.Context, daemon *owner.Member, parkings []*parking) error {
	if t, err := mounts.Of(daemon.Process); err == nil && allServed(t, parkings) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, reloadTime)
	defer cancel()
	for ctx.Err() == nil {
		if err := daemon.Signal(unix.SIGHUP); err != nil {
			return fmt.Errorf("reload automount %d: %w", daemon.PID(), err)
		}
		attempt, stop := context.WithTimeout(ctx, reloadInterval)
		_, err := mounts.Await(attempt, daemon.Process, func(t *mounts.Table) bool { return allServed(t, parkings) })
		stop()
		if err == nil || !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
	return nil
}

// allServed reports whether each path shows a successor of the stale trigger.
func allServed(t *mounts.Table, parkings []*parking) bool {
	for _, p := range parkings {
		for _, trigger := range p.Mounts {
			if trigger.Successor(t) == nil {
				return false
			}
		}
	}
	return true
}
