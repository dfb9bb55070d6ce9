package cure

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/automount"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
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

// How long a daemon may take to mount its triggers. It does so within two
// milliseconds of a SIGHUP, but ignores one while it reads its maps because of
// another: so the signal is repeated.
const (
	reloadTime     = 2 * time.Second
	reloadInterval = 300 * time.Millisecond
)

// reloadAll has each automount daemon mount its stale triggers again. It reports
// whether anything was tried.
//
// On SIGHUP a daemon reads its maps again, and mounts a trigger at each key of a
// direct map where it finds none of its own (daemon/state.c, do_readmap). Parking
// mounts, which it walks over, are at these paths by then: so no path is without a
// mount for a moment, and processes that come meanwhile wait there.
func (w *Repair) reloadAll(ctx context.Context) bool {
	daemons := map[int][]int{}
	for _, i := range w.mountsWith(plan.Reloaded) {
		pid := w.snapshot.Mounts[i].Master.PID
		daemons[pid] = append(daemons[pid], i)
	}
	for pid, list := range daemons {
		daemon := w.container.Masters[pid]
		offsets := slices.DeleteFunc(slices.Clone(list), func(i int) bool {
			return w.snapshot.Mounts[i].Options.Type != autofs.Offset || w.snapshot.Mounts[i].Parking
		})
		w.reloadOffsets(ctx, daemon, offsets)
		list = slices.DeleteFunc(list, func(i int) bool { return slices.Contains(offsets, i) })
		if len(list) > 0 {
			w.reloadDaemon(ctx, daemon, list)
		}
	}
	return len(daemons) > 0
}

// reloadOffsets has stale offset triggers mounted again by the next access.
func (w *Repair) reloadOffsets(ctx context.Context, daemon *owner.Member, list []int) {
	if len(list) == 0 {
		return
	}
	if err := w.container.OpenRoots(ctx, w.rootKeys(list)); err != nil {
		w.warn(err) // processes may wait there: the daemon opens it
	}
	w.openBlockedRoots(ctx, list)
	resume := w.parkWaiters(ctx, list)
	defer resume()
	var triggers []*container.Mount
	for _, i := range list {
		triggers = append(triggers, &w.snapshot.Mounts[i])
	}
	failed := w.detachUnusedKeys(ctx, daemon, triggers)
	for _, i := range list {
		m := &w.snapshot.Mounts[i]
		if err := failed[m.Path]; err != nil {
			w.setUnrepaired(i, err)
			continue
		}
		w.Plan[i].Reason = plan.UnmountedReason
		w.releaseWaiters(m)
	}
}

func (w *Repair) reloadDaemon(ctx context.Context, daemon *owner.Member, list []int) {
	var late []waiters.Waiter
	err := automount.CanReload(ctx, daemon.Process)
	if err == nil {
		late, err = w.parkRunning(ctx, daemon, list)
	}
	parkings := w.parkingsOf(daemon)
	if err == nil {
		err = signalAndAwait(ctx, daemon, parkings)
	}
	failed := map[string]error{}
	for _, p := range parkings {
		errs, finishErr := w.finishParking(ctx, daemon, p)
		err = errors.Join(err, finishErr)
		for path, mountErr := range errs {
			failed[path] = mountErr
		}
	}
	w.markRefused(late)
	for _, i := range list {
		if mountErr := errors.Join(err, failed[w.snapshot.Mounts[i].Path]); mountErr != nil {
			w.setUnrepaired(i, mountErr)
		}
	}
}

// parkRunning parks the processes that use triggers of the daemon which Preserve has
// not replaced, while the container runs. It returns the processes that waited on
// these triggers before.
func (w *Repair) parkRunning(ctx context.Context, daemon *owner.Member, list []int) ([]waiters.Waiter, error) {
	stale := slices.DeleteFunc(slices.Clone(list), func(i int) bool { return w.snapshot.Mounts[i].Parking })
	if len(stale) == 0 {
		return nil, nil
	}
	if err := w.container.OpenRoots(ctx, w.rootKeys(stale)); err != nil {
		w.warn(err) // processes may wait there: the daemon opens it
	}
	w.openBlockedRoots(ctx, stale)
	if err := w.checkReleasable(stale); err != nil {
		return nil, err
	}
	token, err := autofs.CurrentToken()
	if err != nil {
		return nil, err
	}
	places := w.parkPlaces(stale)
	if triggers := w.unparkedTriggers(daemon, stale); len(triggers) > 0 {
		p, err := w.newParking(ctx, daemon, triggers, fdstore.Request{Bound: w.container.Init, Lifetime: parkTime})
		if err != nil {
			return nil, err
		}
		for i, m := range triggers {
			if err := attachLot(ctx, p.lots[i], places, m.Device); err != nil {
				return nil, err
			}
		}
	}
	// From here on no process comes to the stale triggers any more.
	before := w.waitersAt(stale)
	park.Admit(ctx, places, token, func() int { return waiters.NotMoved(before) })
	if err := w.container.ReadTables(); err != nil {
		return before, err
	}
	return before, w.removeCovered(ctx, w.staleMountsOf(daemon))
}

// rootKeys names mounts for [Container.openRoots].
func (w *Repair) rootKeys(list []int) func(container.RootKey) bool {
	wanted := map[container.RootKey]bool{}
	for _, i := range list {
		wanted[w.snapshot.Mounts[i].Key()] = true
	}
	return func(key container.RootKey) bool { return wanted[key] }
}

// unparkedTriggers are those of the mounts that the daemon's own namespace shows and that
// no parking mount covers.
func (w *Repair) unparkedTriggers(daemon *owner.Member, list []int) []*container.Mount {
	var triggers []*container.Mount
	home, err := daemon.Namespace("mnt")
	for _, i := range list {
		if m := &w.snapshot.Mounts[i]; err == nil && !m.UnderParking && m.Namespace == home.Inode {
			triggers = append(triggers, m)
		}
	}
	return triggers
}

// attachLot attaches a parking mount to a trigger in every namespace that shows it.
func attachLot(ctx context.Context, lot *park.Lot, places []park.Place, device uint64) error {
	same := slices.DeleteFunc(slices.Clone(places), func(p park.Place) bool { return p.Device != device })
	for _, origin := range park.Origins(same) {
		err := origin.Process.InMountNamespace(context.WithoutCancel(ctx), func(*nsenter.Thread) error {
			attached, err := lot.StackOn(origin.Root)
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

// signalAndAwait has the daemon read its maps, and waits until its triggers are on
// the parking mounts. What is missing after the time is found by finishParking.
//
// A daemon whose triggers are all there is not signalled, after a run that was killed:
// it has been seen not to answer a request that came while it read its maps.
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
