package hook

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/owner"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/park"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// finishParking releases the processes in parking mounts and takes these away.
// Where the daemon has not mounted a trigger, the stale one is attached again:
// nothing is worse than before then, and the error of that path says so. daemon is
// nil if it has ended.
func (s *scene) finishParking(ctx context.Context, st store, daemon *owner.Member, p *parking) (map[string]error, error) {
	failed := map[string]error{}
	if err := s.readTables(); err != nil {
		return nil, err
	}
	home := s.home(daemon)
	var served []*park.Lot
	var old []*os.File // the stale triggers that have a successor
	for i, t := range p.Mounts {
		lot := home.table.Find(t.Path, t.Parking)
		if lot == nil {
			continue // never attached, or taken away by the daemon or an earlier run
		}
		if over := home.table.Over(lot); over != nil && mounts.DeviceOf(over) != t.Stale {
			old = append(old, p.stale[i])
		} else {
			failed[t.Path] = errNotReloaded
			if over == nil {
				if err := s.attachStale(ctx, daemon, p, i); err != nil {
					return failed, err // it stays parked: the next run tries again
				}
			}
		}
		if p.lots[i] != nil {
			served = append(served, p.lots[i])
		}
	}
	errs := []error{park.Ready(served), s.readTables()}
	// A trigger that an interrupted run has parked may still be beneath.
	removeErr := errors.Join(s.removeCovered(ctx, st, s.stalePlaces(daemon)), s.readTables(), s.removeCovered(ctx, st, p.parkingPlaces()))
	for _, t := range p.Mounts {
		errs = append(errs, s.spread(ctx, st, daemon, t))
	}
	for _, f := range old {
		errs = append(errs, releaseTree(f))
	}
	if err := errors.Join(errs...); err != nil {
		return failed, errors.Join(removeErr, err) // processes may still be parked in another namespace
	}
	s.dropParking(p)
	if removeErr != nil { // no process can reach it: only its note is kept, for the next run
		return failed, errors.Join(removeErr, p.release(ctx))
	}
	return failed, p.end(ctx)
}

var errNotReloaded = fmt.Errorf("automount did not mount it again within %s of a SIGHUP: see its log, whether its map can be read and still has this key; then repair again", reloadTime)

// home is the namespace that the daemon is in; the container's main one if it has
// ended.
func (s *scene) home(daemon *owner.Member) *space {
	if daemon != nil {
		if id, err := daemon.Namespace("mnt"); err == nil {
			for _, sp := range s.spaces {
				if sp.id == id.Inode && sp.table != nil {
					return sp
				}
			}
		}
	}
	return s.main()
}

// attachStale puts the stale trigger of a parking mount over it.
func (s *scene) attachStale(ctx context.Context, daemon *owner.Member, p *parking, i int) error {
	t := p.Mounts[i]
	if p.stale[i] == nil {
		return fmt.Errorf("%q: the stale trigger is lost with the process that held it", t.Path)
	}
	root, err := s.openRoot(ctx, daemon, t.Path, t.Parking)
	if err != nil {
		return err
	}
	defer root.Close()
	return s.home(daemon).process.InMountNamespace(context.WithoutCancel(ctx), func(*nsenter.Thread) error {
		return mounts.Attach(p.stale[i], root)
	})
}

// openRoot opens the root of an autofs mount where the daemon is, or where systemd is
// for a nil daemon. Only the daemon can while processes wait there.
func (s *scene) openRoot(ctx context.Context, daemon *owner.Member, path string, device uint64) (*os.File, error) {
	control, err := autofs.OpenControl()
	if err != nil {
		return nil, err
	}
	defer control.Close()
	opened := make(chan *os.File, 1)
	err = s.home(daemon).process.InMountNamespace(context.WithoutCancel(ctx), func(*nsenter.Thread) error {
		root, err := control.OpenMount(path, device)
		if err == nil {
			opened <- root
		}
		return err
	})
	switch {
	case err == nil:
		return <-opened, nil
	case daemon == nil:
		return nil, err
	}
	files, err := master.OpenRoots(ctx, daemon, []master.Root{{Path: path, Device: device}})
	if err != nil {
		return nil, err
	}
	return files[0], nil
}

// stackedPlace is a mount, by mount point and st_dev, in every namespace.
type stackedPlace struct {
	path   string
	device uint64
}

func (p *parking) parkingPlaces() []stackedPlace {
	var list []stackedPlace
	for _, t := range p.Mounts {
		list = append(list, stackedPlace{t.Path, t.Parking})
	}
	return list
}

// stalePlaces are the triggers of a daemon that are parked.
func (s *scene) stalePlaces(daemon *owner.Member) []stackedPlace {
	var list []stackedPlace
	for _, p := range s.parkingsOf(daemon) {
		for _, t := range p.Mounts {
			list = append(list, stackedPlace{t.Path, t.Stale})
		}
	}
	return list
}

// removeCovered takes mounts away beneath what covers them, in those namespaces
// where something does. It uses the tables as they were read.
func (s *scene) removeCovered(ctx context.Context, st store, list []stackedPlace) error {
	groups := map[string][]stackedPlace{} // by the namespaces that are concerned
	spaces := map[string][]mounts.Space{}
	for _, place := range list {
		var key strings.Builder
		var where []mounts.Space
		for _, sp := range s.mountSpaces() {
			if m := sp.Table.Find(place.path, place.device); m != nil && sp.Table.Over(m) != nil {
				fmt.Fprintf(&key, "%d ", sp.Process.PID())
				where = append(where, sp)
			}
		}
		if len(where) > 0 {
			groups[key.String()] = append(groups[key.String()], place)
			spaces[key.String()] = where
		}
	}
	var errs []error
	for key, places := range groups {
		errs = append(errs, s.removeIn(ctx, st, spaces[key], places))
	}
	return errors.Join(errs...)
}

func (s *scene) removeIn(ctx context.Context, st store, spaces []mounts.Space, places []stackedPlace) error {
	var removals []*mounts.Replacement
	defer func() {
		for _, r := range removals {
			r.New.Close()
		}
	}()
	for _, place := range places {
		r, err := mounts.Removal(place.path, place.device)
		if err != nil {
			return err
		}
		removals = append(removals, r)
	}
	errs := []error{st.replace(ctx, s.init, spaces, removals)}
	for _, r := range removals {
		errs = append(errs, r.Err)
	}
	return errors.Join(errs...)
}

// spread brings a new trigger to the namespaces that it has not propagated to: they
// still show the parking mount or the stale trigger.
func (s *scene) spread(ctx context.Context, st store, daemon *owner.Member, t parkedTrigger) error {
	table, err := mounts.Of(s.home(daemon).process)
	if err != nil {
		return err
	}
	for _, now := range table.Autofs() {
		device := mounts.DeviceOf(now)
		if now.Mountpoint != t.Path || device == t.Parking {
			continue
		}
		// Processes that were released may wait for the new trigger's mount already.
		copied := s.copier(ctx, daemon, t.Path, device)
		err := st.renewElsewhere(ctx, s, t.Path, t.Parking, device, copied)
		if device != t.Stale {
			err = errors.Join(err, st.renewElsewhere(ctx, s, t.Path, t.Stale, device, copied))
		}
		return err
	}
	return nil
}

// releaseTree makes the superblock of a detached mount catatonic: a process that
// is still waiting on it gets ENOENT.
func releaseTree(tree *os.File) error {
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

// removeFills takes away what an interrupted removal of mounts has left.
func (s *scene) removeFills(ctx context.Context, st store) error {
	var list []stackedPlace
	seen := map[stackedPlace]bool{}
	for _, sp := range s.spaces {
		if sp.table == nil {
			continue
		}
		for _, m := range sp.table.Fills() {
			place := stackedPlace{m.Mountpoint, mounts.DeviceOf(m)}
			if !seen[place] {
				seen[place] = true
				list = append(list, place)
			}
		}
	}
	if len(list) == 0 {
		return nil
	}
	return errors.Join(s.removeIn(ctx, st, s.mountSpaces(), list), s.readTables())
}
