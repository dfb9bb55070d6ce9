package cure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/automount"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/owner"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/park"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// finishParking releases the processes in parking mounts and takes these away.
// Where the daemon has not mounted a trigger, the stale one is attached again:
// nothing is worse than before then, and the error of that path says so. daemon is
// nil if it has ended.
func (s *Session) finishParking(ctx context.Context, daemon *owner.Member, p *parking) (map[string]error, error) {
	if len(p.lots) != len(p.Mounts) {
		return nil, errParkingClosed
	}
	if err := s.container.ReadTables(); err != nil {
		return nil, err
	}
	home := s.spaceOfParking(p, daemon)
	result := s.resultOf(ctx, home, p)
	var errs []error
	for _, t := range p.Mounts { // first: a released process makes the new trigger pending
		errs = append(errs, s.copyTrigger(ctx, home, t))
	}
	if park.Parked(result.lots) {
		home.awaitRecorded(ctx, p.Mounts)
	}
	errs = append(errs, park.Ready(result.lots))
	home.awaitServed(ctx, p.Mounts)
	errs = append(errs, s.container.ReadTables())
	// A trigger that an interrupted run has parked may still be beneath.
	stale := s.staleMountsOf(daemon)
	if home.daemon == nil {
		stale = p.staleMounts()
	}
	removeErr := errors.Join(s.removeCovered(ctx, stale), s.container.ReadTables(), s.removeCovered(ctx, p.parkingMounts()))
	for _, f := range result.replaced {
		errs = append(errs, releaseDetached(f))
	}
	if err := errors.Join(errs...); err != nil {
		return result.failed, errors.Join(removeErr, err) // processes may still be parked in another namespace
	}
	if result.retry {
		return result.failed, removeErr
	}
	s.dropParking(p)
	if removeErr != nil { // no process can reach it: only its entry is kept, for the next run
		return result.failed, errors.Join(removeErr, p.closeAll(ctx))
	}
	return result.failed, p.forget(ctx)
}

// reloadResult is what a reload has done for the triggers of parking mounts.
type reloadResult struct {
	// lots are the parking mounts that are still mounted.
	lots []*park.Lot
	// replaced are the stale triggers that have a successor.
	replaced []*os.File
	// failed has an error for each path that the daemon has not mounted again; retry
	// is whether a parking mount stays there for the next run.
	failed map[string]error
	retry  bool
}

// resultOf finds the new triggers in the tables as they were read. Where there is none,
// the stale one is attached again.
func (s *Session) resultOf(ctx context.Context, home daemonSpace, p *parking) reloadResult {
	r := reloadResult{failed: map[string]error{}}
	for i, t := range p.Mounts {
		lot := t.Lot(home.Table)
		if lot == nil {
			continue // never attached, or removed by the daemon or an earlier run
		}
		if t.Successor(home.Table) != nil {
			r.replaced = append(r.replaced, p.stale[i])
		} else {
			r.failed[t.Path] = errNotReloaded
			if home.Table.Over(lot) == nil { // else the stale one is attached
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

var errNotReloaded = fmt.Errorf("automount did not mount it again within %s of a SIGHUP: see its log, whether its map can be read and still has this key; then repair again", reloadTime)

var errParkingClosed = errors.New("the files of the parking mounts could not be opened: the processes in them wait until the next run, or get an error after 10 minutes")

// daemonSpace is where a daemon mounts its triggers.
type daemonSpace struct {
	*container.Space
	daemon *owner.Member // nil if it has ended, or is systemd
}

// spaceOf is the home of a daemon; that of systemd for nil.
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

// spaceOfParking is the home of the daemon of parking mounts, which may have ended.
func (s *Session) spaceOfParking(p *parking, daemon *owner.Member) daemonSpace {
	if daemon != nil && !daemon.Ended() {
		return s.spaceOf(daemon)
	}
	if sp := s.container.Space(p.Namespace); sp != nil && sp.Table != nil {
		return daemonSpace{sp, nil}
	}
	return daemonSpace{s.container.Main(), nil}
}

// attachStale puts the stale trigger of a parking mount over it. Where the daemon has
// ended, the processes in the parking mount get an error: nothing else can open it,
// and they would wait for ever on the stale trigger.
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
		return fmt.Errorf("%q: the stale trigger is lost with the process that held it", t.Path)
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

// openRoot opens the root of an autofs mount. Only its daemon can while processes
// wait there.
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

// copyFunc returns a function that copies an autofs mount.
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

// mountAt is a mount, by mount point and st_dev, in every namespace.
type mountAt struct {
	path    string
	device  uint64
	parking bool // or a trigger
}

func (p *parking) parkingMounts() []mountAt {
	var list []mountAt
	for _, t := range p.Mounts {
		list = append(list, mountAt{t.Path, t.Parking, true})
	}
	return list
}

func (p *parking) staleMounts() []mountAt {
	var list []mountAt
	for _, t := range p.Mounts {
		list = append(list, mountAt{t.Path, t.Stale, false})
	}
	return list
}

// staleMountsOf are the triggers of a daemon that are parked.
func (s *Session) staleMountsOf(daemon *owner.Member) []mountAt {
	var list []mountAt
	for _, p := range s.parkingsOf(daemon) {
		list = append(list, p.staleMounts()...)
	}
	return list
}

// removeCovered takes mounts away beneath what covers them, in those namespaces
// where something does. It uses the tables as they were read.
func (s *Session) removeCovered(ctx context.Context, list []mountAt) error {
	groups := map[string][]mountAt{} // by the namespaces that are concerned
	spaces := map[string][]mounts.Space{}
	seen := map[mountAt]bool{} // an interrupted run may have parked the same trigger
	for _, place := range list {
		if seen[place] {
			continue
		}
		seen[place] = true
		var key strings.Builder
		var where []mounts.Space
		for _, sp := range s.container.MountSpaces() {
			if m := sp.Table.Find(place.path, place.device); m != nil && removable(sp.Table, m, place) {
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
		errs = append(errs, s.removeIn(ctx, spaces[key], places))
	}
	return errors.Join(errs...)
}

// removable reports whether a mount that has the number is the one that is meant: a
// parking mount beneath anything, or a trigger beneath another trigger. A trigger that is
// in use has another cover.
func removable(t *mounts.Table, m *mounts.Mount, meant mountAt) bool {
	over := t.Over(m)
	if over == nil || m.FSType != "autofs" {
		return false
	}
	if meant.parking {
		return m.Source == park.Source
	}
	return m.Source != park.Source && over.FSType == "autofs"
}

func (s *Session) removeIn(ctx context.Context, spaces []mounts.Space, places []mountAt) error {
	var removals []*mounts.Replacement
	defer func() { closeTrees(removals) }()
	for _, place := range places {
		r, err := mounts.Removal(place.path, place.device)
		if err != nil {
			return err
		}
		removals = append(removals, r)
	}
	errs := []error{s.replace(ctx, spaces, removals)}
	for _, r := range removals {
		errs = append(errs, r.Err)
	}
	return errors.Join(errs...)
}

// copyTrigger brings a new trigger to the namespaces that it has not propagated to: they
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
	// Processes that were released may wait for the new trigger's mount already.
	copied := home.copyFunc(ctx, t.Path, device)
	err = s.copyElsewhere(ctx, t.Path, t.Parking, device, copied)
	if device != t.Stale {
		err = errors.Join(err, s.copyElsewhere(ctx, t.Path, t.Stale, device, copied))
	}
	return err
}

// releaseDetached makes the superblock of a detached mount catatonic: a process that
// is still waiting on it gets ENOENT.
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
