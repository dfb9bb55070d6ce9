package cure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/helper/fdstore"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/owner"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/park"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// parking has the parking mounts for triggers of one daemon.
//
// A parking mount replaces a stale trigger from Preserve, or from the start of a late
// repair, until the daemon has mounted a new trigger on it. It is in the journal before
// it is attached, so that the next run can finish an interrupted one. A helper keeps its
// files open.
type parking struct {
	journal.TriggerParking
	entry *journal.Entry[journal.TriggerParking]
	// lots and stale are by the index in Mounts; nil if the helper has ended.
	lots  []*park.Lot
	stale []*os.File
}

// parkTime is how long processes stay parked if no further run follows.
const parkTime = 10 * time.Minute

// newParking creates parking mounts for triggers of a daemon, in its mount namespace, and
// writes their entry. They are not attached yet.
func (s *Session) newParking(ctx context.Context, daemon *owner.Member, list []*container.Mount, request fdstore.Request) (*parking, error) {
	control, err := autofs.OpenControl()
	if err != nil {
		return nil, err
	}
	defer control.Close()
	p := &parking{TriggerParking: journal.TriggerParking{
		Parking: container.Parking{Daemon: daemon.PID(), DaemonStart: daemon.StartTime()}, Namespace: s.spaceOf(daemon).ID,
	}}
	err = daemon.InMountNamespace(context.WithoutCancel(ctx), func(*nsenter.Thread) error {
		for _, m := range list {
			if err := p.addTrigger(s.container.Roots[m.Key()], control, m); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = p.save(s.journal, s.container.Init, request)
	}
	s.addParking(p)
	if err != nil {
		s.dropParking(p)
		return nil, errors.Join(fmt.Errorf("park the processes that use the maps of automount %d: %w", daemon.PID(), err), p.remove(ctx))
	}
	return p, nil
}

// addTrigger creates a parking mount for a trigger, and copies the trigger, in the mount
// namespace of the calling thread. root is the trigger's root, nil if it is not open.
func (p *parking) addTrigger(root *os.File, control *autofs.Control, m *container.Mount) error {
	if root == nil {
		opened, err := control.OpenMount(m.Path, m.Device)
		if err != nil {
			return err
		}
		defer opened.Close()
		root = opened
	}
	stale, err := mounts.Clone(root)
	if err != nil {
		return err
	}
	p.stale = append(p.stale, stale)
	lot, err := park.New(m.Options.ProcessGroup)
	if err != nil {
		return err
	}
	p.lots = append(p.lots, lot)
	device, err := lot.Device()
	p.Mounts = append(p.Mounts, container.ParkedTrigger{Path: m.Path, Parking: device, Stale: m.Device})
	return err
}

// save starts the helper with the files and writes the entry.
func (p *parking) save(j journal.Store, init *nsenter.Process, request fdstore.Request) error {
	for _, lot := range p.lots {
		request.Files = append(request.Files, lot.Root)
	}
	for _, lot := range p.lots {
		request.Files = append(request.Files, lot.Pipe)
	}
	request.Files, request.Release = append(request.Files, p.stale...), len(p.lots)
	ref, recorded, err := fdstore.StartUncommitted(request)
	if err != nil && !errors.Is(err, fdstore.ErrNotMoved) {
		return err
	}
	p.Helper = ref
	// No other entry has the device number of a superblock that exists, except one of
	// parking mounts that are gone and whose entry could not be removed.
	keys := []int{p.Daemon, int(p.Mounts[0].Parking)}
	p.entry, err = journal.TriggerParkings.Begin(j, init, p.TriggerParking, keys...)
	for i := 1; errors.Is(err, journal.ErrPending) && i < maxEntries; i++ {
		p.entry, err = journal.TriggerParkings.Begin(j, init, p.TriggerParking, append(keys, i)...)
	}
	return errors.Join(err, recorded())
}

// maxEntries is the limit of entries with the same daemon and device number.
const maxEntries = 16

// remove closes all files and removes the entry. The entry is removed last, because it
// names the helper.
func (p *parking) remove(ctx context.Context) error {
	if err := p.closeAll(ctx); err != nil || p.entry == nil {
		return err
	}
	return p.entry.Commit()
}

// closeAll closes all files, also those of the helper. Processes in a parking mount that
// is still mounted get ENOENT.
func (p *parking) closeAll(ctx context.Context) error {
	var errs []error
	for _, lot := range p.lots {
		if lot != nil {
			errs = append(errs, lot.Close())
		}
	}
	for _, f := range p.stale {
		f.Close()
	}
	return errors.Join(append(errs, p.Helper.Stop(ctx))...)
}

// closeFiles closes this process's files. The helper has copies.
func (p *parking) closeFiles() {
	for _, lot := range p.lots {
		lot.CloseFiles()
	}
	for _, f := range p.stale {
		f.Close()
	}
}

// LoadParkings loads the parking mounts of earlier stages and runs, and changes nothing.
// The error joins those of entries that cannot be loaded.
func (s *Session) LoadParkings() error {
	return s.loadParkings((*journal.Entry[journal.TriggerParking]).Peek)
}

// loadParkings is LoadParkings with a function that loads an entry.
func (s *Session) loadParkings(load func(*journal.Entry[journal.TriggerParking]) (journal.TriggerParking, error)) error {
	entries, err := journal.TriggerParkings.All(s.journal, s.container.Init)
	errs := []error{err}
	for _, entry := range entries {
		parked, err := load(entry)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.addParking(&parking{TriggerParking: parked, entry: entry})
	}
	s.adoptParkings()
	return errors.Join(errs...)
}

// addParking adds p to the session and the container.
func (s *Session) addParking(p *parking) {
	s.parkings = append(s.parkings, p)
	s.container.Parkings = append(s.container.Parkings, &p.Parking)
}

// adoptParkings finds parking mounts whose entry is lost. The process group in their
// options is the daemon's.
func (s *Session) adoptParkings() {
	for _, m := range s.container.Main().Table.Autofs() {
		if m.Source != park.Source || s.container.IsParking(m) {
			continue
		}
		options, err := autofs.ParseOptions(m.VFSOptions)
		if err != nil || !slices.Contains(s.container.Members, options.ProcessGroup) {
			continue
		}
		daemon, err := nsenter.Open(options.ProcessGroup)
		if err != nil {
			continue
		}
		id, err := master.Identify(daemon)
		if _, outside := s.container.Owner.Admit(daemon); err == nil && outside == nil && id.Kind == master.Automount {
			p := &parking{}
			p.Daemon, p.DaemonStart = daemon.PID(), daemon.StartTime()
			p.Mounts = []container.ParkedTrigger{{Path: m.Mountpoint, Parking: mounts.DeviceOf(m)}}
			s.addParking(p)
		}
		daemon.Close()
	}
}

// resumeParkings opens the files of the parking mounts of earlier stages and runs. It
// finishes those that no namespace shows or whose daemon has ended.
func (s *Session) resumeParkings(ctx context.Context) error {
	var errs []error
	for _, p := range slices.Clone(s.parkings) {
		if err := errors.Join(p.open(), s.dropUnmounted(p)); err != nil {
			errs = append(errs, err)
			continue
		}
		daemon, err := s.container.Daemon(&p.Parking)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if daemon == nil || !slices.ContainsFunc(p.Mounts, s.shows) {
			_, err = s.finishParking(ctx, daemon, p)
			errs = append(errs, err)
		}
		if daemon != nil {
			daemon.Close()
		}
	}
	return errors.Join(errs...)
}

// dropUnmounted removes parking mounts from an entry that no namespace shows, if their
// helper has ended: other mounts may get their device numbers.
func (s *Session) dropUnmounted(p *parking) error {
	shown := slices.DeleteFunc(slices.Clone(p.Mounts), func(t container.ParkedTrigger) bool { return !s.shows(t) })
	if p.entry == nil || len(shown) == len(p.Mounts) || len(shown) == 0 || slices.ContainsFunc(p.lots, func(l *park.Lot) bool { return l != nil }) {
		return nil
	}
	p.Mounts, p.lots, p.stale = shown, make([]*park.Lot, len(shown)), make([]*os.File, len(shown))
	return p.entry.Save(p.TriggerParking)
}

// shows reports whether a mount namespace shows the parking mount of a trigger.
func (s *Session) shows(t container.ParkedTrigger) bool {
	return slices.ContainsFunc(s.container.MountSpaces(), func(sp mounts.Space) bool { return t.Lot(sp.Table) != nil })
}

// parkingsOf returns the parking mounts for triggers of the daemon, none for nil.
func (s *Session) parkingsOf(daemon *owner.Member) []*parking {
	var list []*parking
	for _, p := range s.parkings {
		if daemon != nil && p.Daemon == daemon.PID() && p.DaemonStart == daemon.StartTime() {
			list = append(list, p)
		}
	}
	return list
}

// dropParking removes p from the session and the container.
func (s *Session) dropParking(p *parking) {
	s.parkings = slices.DeleteFunc(s.parkings, func(q *parking) bool { return q == p })
	s.container.Parkings = slices.DeleteFunc(s.container.Parkings, func(q *container.Parking) bool { return q == &p.Parking })
}

// open opens the files of the helper. If the helper has ended, it has released the
// processes in the parking mounts with an error, and the files are nil. They are
// also nil if the entry is lost.
func (p *parking) open() error {
	n := len(p.Mounts)
	files, err := p.Helper.OpenAll()
	if p.Helper == (fdstore.Ref{}) || errors.Is(err, fdstore.ErrGone) {
		p.lots, p.stale = make([]*park.Lot, n), make([]*os.File, n)
		return nil
	}
	if err != nil || len(files) != 3*n {
		for _, f := range files {
			f.Close()
		}
		return errors.Join(fmt.Errorf("helper %d has %d files of parking mounts, want %d", p.Helper.PID, len(files), 3*n), err)
	}
	for i := range n {
		p.lots, p.stale = append(p.lots, park.OpenLot(files[i], files[n+i])), append(p.stale, files[2*n+i])
	}
	return nil
}
