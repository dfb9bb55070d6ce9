package cure

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/owner"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/park"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// finishParking releases the processes in parking mounts and removes these. Where the
// daemon has not mounted a trigger, it attaches the stale one again, and the first result
// has an error for that path. daemon is nil if it has ended.
func (s *Session) finishParking(ctx context.Context, daemon *owner.Member, p *parking) (map[string]error, error) {
	if len(p.lots) != len(p.Mounts) {
		return nil, errParkingClosed
	}
	if err := s.container.ReadTables(); err != nil {
		return nil, err
	}
	home := s.spaceOfParking(p, daemon)
	result := s.attachMissing(ctx, home, p)
	table, err := mounts.Of(home.Process) // attachMissing may have changed it
	errs := []error{err}
	for _, t := range p.Mounts { // before the release: a waiter blocks the new trigger
		if err == nil {
			errs = append(errs, s.copyTrigger(ctx, home, table, t))
		}
	}
	if park.HasWaiters(result.lots) {
		home.awaitStored(ctx, p.Mounts)
	}
	errs = append(errs, park.Continue(result.lots))
	home.awaitServed(ctx, p.Mounts)
	errs = append(errs, s.container.ReadTables())
	// The stale trigger of an interrupted run may still be beneath.
	stale := s.staleMountsOf(daemon)
	if home.daemon == nil {
		stale = p.staleMounts()
	}
	removeErr := errors.Join(s.removeCovered(ctx, stale), s.container.ReadTables(), s.removeCovered(ctx, p.parkingMounts()))
	for _, f := range result.replaced {
		errs = append(errs, releaseDetached(f))
	}
	if err := errors.Join(errs...); err != nil {
		return result.failed, errors.Join(removeErr, err) // another namespace may still have parked processes
	}
	if result.retry {
		return result.failed, removeErr
	}
	s.dropParking(p)
	if removeErr != nil { // no process can reach the mount: only the entry stays, for the next run
		return result.failed, errors.Join(removeErr, p.closeAll(ctx))
	}
	return result.failed, p.remove(ctx)
}

// reloadResult is the result of a reload for the triggers of parking mounts.
type reloadResult struct {
	// lots are the parking mounts that are still mounted.
	lots []*park.Lot
	// replaced are the stale triggers that have a successor.
	replaced []*os.File
	// failed has an error for each path that the daemon has not mounted again; retry
	// is whether a parking mount must stay for the next run.
	failed map[string]error
	retry  bool
}

// attachMissing finds the new triggers in the tables as last read, and attaches the stale
// ones where there are none.
func (s *Session) attachMissing(ctx context.Context, home masterSpace, p *parking) reloadResult {
	r := reloadResult{failed: map[string]error{}}
	for i, t := range p.Mounts {
		lot := t.Lot(home.Table)
		if lot == nil {
			continue // not attached yet, or removed by the daemon or an earlier run
		}
		if t.Successor(home.Table) != nil {
			r.replaced = append(r.replaced, p.stale[i])
		} else {
			r.failed[t.Path] = errNotReloaded
			if home.Table.LowestCover(lot) == nil { // else the stale one is attached
				if err := s.attachStale(ctx, home, p, i); err != nil {
					r.failed[t.Path], r.retry = err, true
					continue
				}
			}
		}
		if p.lots[i] != nil {
			r.lots = append(r.lots, p.lots[i])
		}
	}
	return r
}

var errNotReloaded = fmt.Errorf("automount did not mount it again within %s of a SIGHUP: check in its log that its map can be read and has this key; then repair again", reloadTime)

var errParkingClosed = fmt.Errorf("the files of the parking mounts could not be opened: the processes in them wait until the next run, or get an error after %s; repair again", parkTime)

// attachStale attaches the stale trigger to its parking mount, number i. If the daemon has
// ended, the processes in the parking mount get an error (ENOENT): they would wait for
// ever on the stale trigger, and only the daemon could open the parking mount.
func (s *Session) attachStale(ctx context.Context, home masterSpace, p *parking, i int) error {
	t := p.Mounts[i]
	if home.daemon == nil && p.lots[i] != nil {
		if err := autofs.Release(p.lots[i].Root); err != nil {
			return err
		}
	}
	if p.stale[i] == nil && home.daemon == nil {
		return park.Remove(ctx, home.Process, t.Path, t.Parking)
	}
	if p.stale[i] == nil {
		return fmt.Errorf("%q: the stale trigger cannot be attached again, because the helper that had it open has ended: restart automount", t.Path)
	}
	root, err := home.openRoot(ctx, t.Path, t.Parking)
	if err != nil {
		return err
	}
	defer root.Close()
	return home.Process.InMountNamespace(context.WithoutCancel(ctx), func(*nsenter.Thread) error {
		return mounts.Attach(p.stale[i], root)
	})
}

// copyTrigger copies the trigger that table, the daemon's, shows at a path to the namespaces
// to which it has not propagated, which still show the parking mount or the stale trigger.
func (s *Session) copyTrigger(ctx context.Context, home masterSpace, table *mounts.Table, t container.ParkedTrigger) error {
	trigger := t.Successor(table)
	if trigger == nil {
		trigger = table.Find(t.Path, t.Stale)
	}
	if trigger == nil || trigger.FSType != "autofs" {
		return nil
	}
	device := mounts.DeviceOf(trigger)
	newCopy := home.copyFunc(ctx, t.Path, device)
	err := s.copyElsewhere(ctx, t.Path, t.Parking, device, newCopy)
	if device != t.Stale {
		err = errors.Join(err, s.copyElsewhere(ctx, t.Path, t.Stale, device, newCopy))
	}
	return err
}

// releaseDetached makes the superblock of a detached mount catatonic: its waiters get
// ENOENT. tree may be nil.
func releaseDetached(tree *os.File) error {
	if tree == nil {
		return nil
	}
	root, err := autofs.Reopen(tree)
	if err != nil {
		return err
	}
	defer root.Close()
	return autofs.Release(root)
}
