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

// parking are the parking mounts for triggers of one daemon.
//
// A parking mount stands in the place of a stale trigger from Preserve, or from
// the beginning of a late repair, until its daemon has mounted a new trigger over
// it. The journal names it before it is attached, so that the next run goes on
// where an interrupted one stopped. A helper has its files open meanwhile.
type parking struct {
	journal.ParkedTriggers
	entry *journal.Entry[journal.ParkedTriggers]
	// lots and stale are by the index in Mounts; nil if the helper has ended.
	lots  []*park.Lot
	stale []*os.File
}

// parkTime is the longest that processes are parked between two stages of a
// restore.
const parkTime = 10 * time.Minute

// newParking makes parking mounts for triggers of a daemon, in its mount
// namespace, and records them. They are not attached yet.
func (s *Session) newParking(ctx context.Context, daemon *owner.Member, list []*container.Mount, h fdstore.Request) (*parking, error) {
	control, err := autofs.OpenControl()
	if err != nil {
		return nil, err
	}
	defer control.Close()
	p := &parking{ParkedTriggers: journal.ParkedTriggers{
		Parking: container.Parking{Daemon: daemon.PID(), DaemonStart: daemon.StartTime()}, Namespace: s.spaceOf(daemon).ID,
	}}
	err = daemon.InMountNamespace(context.WithoutCancel(ctx), func(*nsenter.Thread) error {
		for _, m := range list {
			if err := p.add(s.container.Roots[m.Key()], control, m); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = p.record(s.journal, s.container.Init, h)
	}
	s.addParking(p)
	if err != nil {
		s.dropParking(p)
		return nil, errors.Join(fmt.Errorf("park the processes that use the maps of automount %d: %w", daemon.PID(), err), p.forget(ctx))
	}
	return p, nil
}

// add makes a parking mount and copies the trigger that it replaces, whose root may
// be open already, in the namespace of the calling thread.
func (p *parking) add(root *os.File, control *autofs.Control, m *container.Mount) error {
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

// record hands the files to a helper and writes the entry.
func (p *parking) record(j journal.Store, init *nsenter.Process, h fdstore.Request) error {
	for _, lot := range p.lots {
		h.Files = append(h.Files, lot.Root)
	}
	for _, lot := range p.lots {
		h.Files = append(h.Files, lot.Pipe)
	}
	h.Files, h.Release = append(h.Files, p.stale...), len(p.lots)
	ref, recorded, err := fdstore.StartUnrecorded(h)
	if err != nil && !errors.Is(err, fdstore.ErrNotMoved) {
		return err
	}
	p.Helper = ref
	// The number of a superblock that exists belongs to no other entry, but to that of
	// parking mounts that are gone and could not be forgotten.
	keys := []int{p.Daemon, int(p.Mounts[0].Parking)}
	p.entry, err = journal.TriggersParked.Begin(j, init, p.ParkedTriggers, keys...)
	for i := 1; errors.Is(err, journal.ErrPending) && i < maxEntries; i++ {
		p.entry, err = journal.TriggersParked.Begin(j, init, p.ParkedTriggers, append(keys, i)...)
	}
	return errors.Join(err, recorded())
}

// maxEntries bounds how many entries of one daemon and number there are.
const maxEntries = 16

// forget forgets the parking mounts. The entry goes last: without it no run would find
// the helper.
func (p *parking) forget(ctx context.Context) error {
	if err := p.closeAll(ctx); err != nil || p.entry == nil {
		return err
	}
	return p.entry.Commit()
}

// closeAll closes all files. Processes in a parking mount that is still mounted get
// ENOENT.
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

// closeOwn closes our files: the helper has its own.
func (p *parking) closeOwn() {
	for _, lot := range p.lots {
		lot.Leave()
	}
	for _, f := range p.stale {
		f.Close()
	}
}

// LoadParkings loads the parking mounts that earlier stages or runs have left, and
// changes nothing.
func (s *Session) LoadParkings() error {
	return s.loadParkings((*journal.Entry[journal.ParkedTriggers]).Peek)
}

func (s *Session) loadParkings(load func(*journal.Entry[journal.ParkedTriggers]) (journal.ParkedTriggers, error)) error {
	entries, err := journal.TriggersParked.All(s.journal, s.container.Init)
	errs := []error{err}
	for _, entry := range entries {
		parked, err := load(entry)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.addParking(&parking{ParkedTriggers: parked, entry: entry})
	}
	s.adoptParkings()
	return errors.Join(errs...)
}

func (s *Session) addParking(p *parking) {
	s.parkings = append(s.parkings, p)
	s.container.Parkings = append(s.container.Parkings, &p.Parking)
}

// adoptParkings finds parking mounts whose record is lost. The process group in
// their options is the daemon's.
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

// resumeParkings goes on with the parking mounts of earlier stages or runs. Those
// whose daemon has ended are taken away, and those that are gone forgotten.
func (s *Session) resumeParkings(ctx context.Context) error {
	var errs []error
	for _, p := range slices.Clone(s.parkings) {
		if err := errors.Join(p.open(), s.forgetGone(p)); err != nil {
			errs = append(errs, err)
			continue
		}
		daemon, err := s.container.Daemon(&p.Parking)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if daemon == nil || !s.showsAny(p) {
			_, err = s.finishParking(ctx, daemon, p)
			errs = append(errs, err)
		}
		if daemon != nil {
			daemon.Close()
		}
	}
	return errors.Join(errs...)
}

// forgetGone leaves out the parking mounts that are gone, and whose helper has ended: other
// mounts may get their numbers.
func (s *Session) forgetGone(p *parking) error {
	shown := slices.DeleteFunc(slices.Clone(p.Mounts), func(t container.ParkedTrigger) bool {
		return !slices.ContainsFunc(s.container.MountSpaces(), func(sp mounts.Space) bool { return t.Lot(sp.Table) != nil })
	})
	if p.entry == nil || len(shown) == len(p.Mounts) || len(shown) == 0 || slices.ContainsFunc(p.lots, func(l *park.Lot) bool { return l != nil }) {
		return nil
	}
	p.Mounts, p.lots, p.stale = shown, make([]*park.Lot, len(shown)), make([]*os.File, len(shown))
	return p.entry.Save(p.ParkedTriggers)
}

// showsAny reports whether a mount namespace shows one of the parking mounts.
func (s *Session) showsAny(p *parking) bool {
	return slices.ContainsFunc(s.container.MountSpaces(), func(sp mounts.Space) bool {
		return slices.ContainsFunc(p.Mounts, func(t container.ParkedTrigger) bool { return t.Lot(sp.Table) != nil })
	})
}

// parkingsOf are the parking mounts for triggers of the daemon.
func (s *Session) parkingsOf(daemon *owner.Member) []*parking {
	var list []*parking
	for _, p := range s.parkings {
		if daemon != nil && p.Daemon == daemon.PID() && p.DaemonStart == daemon.StartTime() {
			list = append(list, p)
		}
	}
	return list
}

func (s *Session) dropParking(p *parking) {
	s.parkings = slices.DeleteFunc(s.parkings, func(q *parking) bool { return q == p })
	s.container.Parkings = slices.DeleteFunc(s.container.Parkings, func(q *container.Parking) bool { return q == &p.Parking })
}

// open takes the files from the helper. One that has ended has released the
// processes in the parking mounts, with an error. There is none if the record is lost.
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
		return errors.Join(fmt.Errorf("files of parking mounts: %d, want %d", len(files), 3*n), err)
	}
	for i := range n {
		p.lots, p.stale = append(p.lots, park.Resume(files[i], files[n+i])), append(p.stale, files[2*n+i])
	}
	return nil
}
