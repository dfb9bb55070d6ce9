package cure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/automount"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/owner"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/park"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"

	"golang.org/x/sys/unix"
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
	triggers := s.attachMissing(ctx, home, p)
	var errs []error
	for _, t := range p.Mounts { // before the release: a waiter blocks the new trigger
		errs = append(errs, s.copyTrigger(ctx, home, t))
	}
	if park.Parked(triggers.served) {
		time.Sleep(storeTime)
	}
	errs = append(errs, park.Ready(triggers.served))
	home.awaitServed(ctx, p.Mounts)
	errs = append(errs, s.container.ReadTables())
	// The stale trigger of an interrupted run may still be beneath.
	stale := s.staleMountsOf(daemon)
	if home.daemon == nil {
		stale = p.staleMounts()
	}
	removeErr := errors.Join(s.removeCovered(ctx, stale), s.container.ReadTables(), s.removeCovered(ctx, p.parkingMounts()))
	for _, f := range triggers.replaced {
		errs = append(errs, releaseDetached(f))
	}
	if err := errors.Join(errs...); err != nil {
		return triggers.failed, errors.Join(removeErr, err) // another namespace may still have parked processes
	}
	if triggers.pending {
		return triggers.failed, removeErr
	}
	s.dropParking(p)
	if removeErr != nil { // no process can reach the mount: only the entry stays, for the next run
		return triggers.failed, errors.Join(removeErr, p.closeAll(ctx))
	}
	return triggers.failed, p.remove(ctx)
}

// parkedTriggers are the triggers on parking mounts after a reload.
type parkedTriggers struct {
	failed   map[string]error // of paths without a new trigger
	served   []*park.Lot      // parking mounts with a trigger on them
	replaced []*os.File       // stale triggers for which there is a new one
	pending  bool             // a parking mount has no trigger and must stay
}

// attachMissing attaches the stale triggers where the daemon has mounted no new ones.
func (s *Session) attachMissing(ctx context.Context, home daemonSpace, p *parking) parkedTriggers {
	triggers := parkedTriggers{failed: map[string]error{}}
	for i, t := range p.Mounts {
		lot := home.Table.Find(t.Path, t.Parking)
		if lot == nil {
			continue // not attached yet, or removed by the daemon or an earlier run
		}
		if over := home.Table.Over(lot); over != nil && mounts.DeviceOf(over) != t.Stale {
			triggers.replaced = append(triggers.replaced, p.stale[i])
		} else {
			triggers.failed[t.Path] = errNotReloaded
			if over == nil {
				if err := s.attachStale(ctx, home, p, i); err != nil {
					triggers.failed[t.Path], triggers.pending = err, true // the next run tries again
					continue
				}
			}
		}
		if p.lots[i] != nil {
			triggers.served = append(triggers.served, p.lots[i])
		}
	}
	return triggers
}

// storeTime is how long a daemon may take to store the device and inode number of a trigger
// after mounting it. It never answers a request that arrives before
// (daemon/direct.c, cache_set_ino_index).
const storeTime = 20 * time.Millisecond

var errNotReloaded = fmt.Errorf("automount did not mount it again within %s of a SIGHUP: check in its log that its map can be read and has this key; then repair again", reloadTime)

var errParkingClosed = fmt.Errorf("the files of the parking mounts could not be opened: the processes in them wait until the next run, or get an error after %s; repair again", parkTime)

// daemonSpace is the mount namespace in which a daemon mounts its triggers.
type daemonSpace struct {
	*container.Space
	daemon *owner.Member // nil if it has ended, or is systemd
}

// spaceOf returns the mount namespace of a daemon; the main one for nil, which is
// systemd's.
func (s *Session) spaceOf(daemon *owner.Member) daemonSpace {
	if daemon != nil {
		if id, err := daemon.Namespace("mnt"); err == nil {
			if sp := s.container.Space(id.Inode); sp != nil && sp.Table != nil {
				return daemonSpace{sp, daemon}
			}
		}
	}
	return daemonSpace{s.container.Main(), daemon}
}

// spaceOfParking returns the mount namespace of the daemon of parking mounts, also if the
// daemon has ended.
func (s *Session) spaceOfParking(p *parking, daemon *owner.Member) daemonSpace {
	if daemon != nil && !daemon.Ended() {
		return s.spaceOf(daemon)
	}
	if sp := s.container.Space(p.Namespace); sp != nil && sp.Table != nil {
		return daemonSpace{sp, nil}
	}
	return daemonSpace{s.container.Main(), nil}
}

// awaitServed waits until the new triggers have no waiters, for servingTime at most. While a
// trigger has one, its path does not exist for this process (ENOENT).
func (h daemonSpace) awaitServed(ctx context.Context, list []container.ParkedTrigger) {
	ctx, cancel := context.WithTimeout(ctx, servingTime)
	defer cancel()
	for _, t := range list {
		for ctx.Err() == nil {
			err := h.Process.InMountNamespace(ctx, func(*nsenter.Thread) error {
				var st unix.Stat_t
				return unix.Lstat(t.Path, &st)
			})
			if !errors.Is(err, unix.ENOENT) {
				break
			}
			time.Sleep(container.RetryInterval)
		}
	}
}

// attachStale attaches the stale trigger to its parking mount, number i. If the daemon has
// ended, the processes in the parking mount get an error (ENOENT): they would wait for
// ever on the stale trigger, and only the daemon could open the parking mount.
func (s *Session) attachStale(ctx context.Context, home daemonSpace, p *parking, i int) error {
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

// openRoot opens the root of an autofs mount. While it has waiters only its daemon can; then
// the daemon is made to open it.
func (h daemonSpace) openRoot(ctx context.Context, path string, device uint64) (*os.File, error) {
	control, err := autofs.OpenControl()
	if err != nil {
		return nil, err
	}
	defer control.Close()
	opened := make(chan *os.File, 1)
	err = h.Process.InMountNamespace(context.WithoutCancel(ctx), func(*nsenter.Thread) error {
		root, err := control.OpenMount(path, device)
		if err == nil {
			opened <- root
		}
		return err
	})
	switch {
	case err == nil:
		return <-opened, nil
	case h.daemon == nil:
		return nil, err
	}
	files, err := automount.OpenRoots(ctx, h.daemon, []automount.Root{{Path: path, Device: device}})
	if err != nil {
		return nil, err
	}
	return files[0], nil
}

// copyFunc returns a function that copies the autofs mount with a mount point and st_dev.
func (h daemonSpace) copyFunc(ctx context.Context, path string, device uint64) func() (*os.File, error) {
	return func() (*os.File, error) {
		root, err := h.openRoot(ctx, path, device)
		if err != nil {
			return nil, err
		}
		defer root.Close()
		copied := make(chan *os.File, 1)
		err = h.Process.InMountNamespace(context.WithoutCancel(ctx), func(*nsenter.Thread) error {
			tree, err := mounts.Clone(root)
			if err == nil {
				copied <- tree
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		return <-copied, nil
	}
}

// copyTrigger copies a new trigger to the namespaces to which it has not propagated, which
// still show the parking mount or the stale trigger.
func (s *Session) copyTrigger(ctx context.Context, home daemonSpace, t container.ParkedTrigger) error {
	table, err := mounts.Of(home.Process)
	if err != nil {
		return err
	}
	var device uint64
	for _, now := range table.Autofs() {
		if now.Mountpoint == t.Path && mounts.DeviceOf(now) != t.Parking && (device == 0 || device == t.Stale) {
			device = mounts.DeviceOf(now) // the stale one if there is no other
		}
	}
	if device == 0 {
		return nil
	}
	newCopy := home.copyFunc(ctx, t.Path, device)
	err = s.copyElsewhere(ctx, t.Path, t.Parking, device, newCopy)
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
