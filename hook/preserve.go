package hook

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/device"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/freezer"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// preserve works at CRIU's pre-resume: all processes are stopped, nobody waits
// on any mount, and the images can still be read. It makes the mounts that a
// systemd serves anew, with the device numbers that this systemd remembers,
// and has a holder keep the roots of all others open for the repair.
func (r Runner) preserve(ctx context.Context, e Event) error {
	init, err := nsenter.Open(e.PID)
	if err != nil {
		return err
	}
	defer init.Close()
	criu, err := nsenter.Open(e.CRIU)
	if err != nil {
		return fmt.Errorf("the restoring process: %w", err)
	}
	defer criu.Close()
	s := store{r.Directory}
	lock, err := s.lock(ctx, criu)
	if err != nil {
		return err
	}
	defer s.unlock(lock)
	rec, err := s.load(criu)
	if err != nil {
		r.Warn(err)
	}
	if rec == nil {
		if rec, err = r.lateRecord(e); err != nil {
			r.Warn(err) // without images the mounts are judged by their dates, later
			rec = &record{}
		}
	}
	if rec.Moment == Preserve || rec.Moment == Repair {
		return nil // called twice for this stage
	}
	sc, err := look(init, false)
	if err != nil {
		return errors.Join(err, rec.Holder.Stop(ctx))
	}
	defer sc.close()
	if !sc.hasAutofs() {
		return rec.Holder.Stop(ctx)
	}
	rec.Init, rec.Moment = init.Identity(), Preserve
	if err := sc.openRoots(ctx); err != nil {
		r.Warn(err)
	}
	if err := r.preserveIn(ctx, sc, rec, nil); err != nil {
		r.Warn(err)
	}
	if err := r.hold(criu, rec, rec.keepRoots(sc)); err != nil {
		r.Warn(err)
		rec.Roots = nil
	}
	r.freezeForRepair(ctx, sc, criu, rec)
	if err := s.save(criu, rec); err != nil {
		return errors.Join(err, rec.Holder.Stop(ctx), rec.thaw())
	}
	return nil
}

// freezeForRepair freezes the container but for the masters and their services,
// if a master is still to be told or replaced: then nobody can run into a mount
// that is not served between the resume and the repair. Where it is not
// possible, those who do are let go by the repair.
func (r Runner) freezeForRepair(ctx context.Context, sc *scene, criu *nsenter.Process, rec *record) {
	list, err := sc.survey()
	if err != nil {
		return
	}
	rec.describe(list)
	spare := []int{sc.init.PID()}
	needed := false
	for i := range list {
		m := &list[i]
		if m.Master.PID == 0 || m.knownHealthy() || !m.Options.Type.Trigger() {
			continue
		}
		needed = true
		spare = append(spare, m.Master.PID)
	}
	if !needed {
		return
	}
	frozen, err := freezer.Freeze(ctx, freezer.Request{
		Members: sc.init.Descendants, Spare: spare, Until: criu, Version2Only: true,
	})
	if errors.Is(err, freezer.ErrShared) {
		return // an ordinary container without groups of its own
	}
	if err != nil {
		r.Warn(err)
		return
	}
	ref := frozen.Leave()
	rec.Frozen = &ref
}

// lateRecord makes the record that Reserve would have made, holding nothing.
func (r Runner) lateRecord(e Event) (*record, error) {
	store{r.Directory}.sweep()
	has, err := hasAutofs(e.ImageDir)
	if err != nil || !has {
		return &record{}, err
	}
	set, err := readImages(e.ImageDir)
	if err != nil {
		return nil, err
	}
	return &record{Devices: devicesOf(set)}, nil
}

// keepRoots lists the open roots that the repair will need, and notes their
// order in the record.
func (r *record) keepRoots(sc *scene) []*os.File {
	r.Roots = nil
	var files []*os.File
	for key, f := range sc.roots {
		r.Roots = append(r.Roots, heldRoot{Namespace: key.namespace, Mount: key.mount, Index: len(files)})
		files = append(files, f)
	}
	return files
}

// preserveIn gives the mounts their old numbers back. What it could not do is
// noted in the record, with the reason.
// fillers hold wanted numbers, beside those that the record's holder has.
func (r Runner) preserveIn(ctx context.Context, sc *scene, rec *record, fillers []*os.File) error {
	rec.NotPreserved = map[string]string{}
	list, err := sc.survey()
	if err != nil {
		return errors.Join(err, rec.Holder.Stop(ctx))
	}
	rec.describe(list)
	picked := toPreserve(list)
	pool, err := adopt(ctx, rec, list, picked, fillers)
	if err != nil {
		return err
	}
	var replacements []*mounts.Replacement
	defer func() {
		for _, r := range replacements {
			r.New.Close()
		}
	}()
	for _, i := range picked {
		m := &list[i]
		f, err := pool.Take(ctx, m.DeviceBefore, func() (*os.File, error) { return sc.recreate(m, rec.before(m.Path)) })
		if err != nil {
			rec.NotPreserved[m.Path] = err.Error()
			continue
		}
		replacements = append(replacements, &mounts.Replacement{Path: m.Path, Old: m.Device, New: f, Device: m.DeviceBefore})
	}
	pool.Close()
	if len(replacements) == 0 {
		return nil
	}
	if err := mounts.Replace(ctx, sc.mountSpaces(), replacements); err != nil {
		r.Warn(err)
	}
	return r.verifyPreserved(sc, rec, list, replacements)
}

// preserveLate does what preserve does while the container runs: it is frozen
// for the time, so that no access comes in between. Where it cannot be frozen
// it runs on; the swap itself leaves no gap.
func (r Runner) preserveLate(ctx context.Context, sc *scene, rec *record, fillers []*os.File) {
	if len(rec.wanted()) == 0 || !sc.hasAutofs() {
		return
	}
	frozen, err := freezer.Freeze(ctx, freezer.Request{Members: sc.init.Members})
	if err != nil {
		r.Warn(err)
	}
	if err := sc.readTables(); err == nil {
		if err := sc.openRoots(ctx); err != nil {
			r.Warn(err)
		}
	}
	if err := r.preserveIn(ctx, sc, rec, fillers); err != nil {
		r.Warn(err)
	}
	if frozen != nil {
		if err := frozen.Thaw(); err != nil {
			r.Warn(err)
		}
	}
}

// adopt takes over the numbers that Reserve held, and fills all other free
// ones below the highest wanted.
func adopt(ctx context.Context, rec *record, list []Mount, picked []int, fillers []*os.File) (*device.Pool, error) {
	var wanted []uint64
	for _, i := range picked {
		wanted = append(wanted, list[i].DeviceBefore)
	}
	pool := device.New(wanted)
	var errs []error
	for _, f := range fillers {
		errs = append(errs, pool.Adopt(f))
	}
	for i := range rec.Holder.Files {
		f, err := rec.Holder.Open(i)
		if err == nil {
			err = pool.Adopt(f)
		}
		errs = append(errs, err)
	}
	// Its copies must be closed for the numbers to become free.
	errs = append(errs, rec.Holder.Stop(ctx), pool.Fill(ctx))
	if err := errors.Join(errs...); err != nil {
		pool.Close()
		return nil, err
	}
	return pool, nil
}

// recreate makes a superblock like that of the mount, on the pipe that its
// master reads.
func (s *scene) recreate(m *Mount, before oldDevice) (*os.File, error) {
	p := s.masters[m.Master.PID]
	writer, err := p.OpenFileDescriptor(m.Master.PipeFD, unix.O_WRONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	defer writer.Close()
	o := m.Options
	fd := o.FD
	if before.FD > 0 {
		fd = before.FD
	}
	return autofs.Create(autofs.CreateOptions{
		PipeWriter: writer, FD: fd, ProcessGroup: o.ProcessGroup, Type: o.Type, Timeout: o.Timeout,
		MinProto: o.MinProto, MaxProto: o.MaxProto, UID: o.UID, GID: o.GID, Source: m.Source,
		StrictExpire: o.StrictExpire, Ignore: o.Ignore,
	})
}

func (s *scene) mountSpaces() []mounts.Space {
	var list []mounts.Space
	for _, sp := range s.spaces {
		list = append(list, mounts.Space{Process: sp.process, Table: sp.table})
	}
	return list
}

// verifyPreserved looks at the mounts anew. A mount counts as preserved if
// every namespace that showed the old superblock shows the new one in its
// place, once, with the same covers. Then the old superblock is made catatonic:
// nobody can be left waiting on it.
func (r Runner) verifyPreserved(sc *scene, rec *record, before []Mount, replacements []*mounts.Replacement) error {
	if err := sc.readTables(); err != nil {
		return err
	}
	after, err := sc.survey()
	if err != nil {
		return err
	}
	for _, replaced := range replacements {
		err := replaced.Err
		for i := range before {
			old := &before[i]
			if old.Path != replaced.Path || old.Device != replaced.Old {
				continue
			}
			now := findMount(after, old.Namespace, old.Path)
			if now == nil || now.Device != replaced.Device || !sameCovers(old.Below, now.Below) {
				err = errors.Join(err, fmt.Errorf("mount namespace %d does not show the new mount in the place of the old one", old.Namespace))
				continue
			}
			key := rootKey{old.Namespace, old.ID}
			if root := sc.roots[key]; root != nil && err == nil {
				err = autofs.Catatonic(root)
				root.Close()
				delete(sc.roots, key)
			}
		}
		if err != nil {
			rec.NotPreserved[replaced.Path] = err.Error()
			continue
		}
		rec.Preserved = append(rec.Preserved, replaced.Path)
	}
	return nil
}

// sameCovers compares what lies on a mount by the kernel's mount ids.
func sameCovers(a, b []Cover) bool {
	if len(a) != len(b) {
		return false
	}
	ids := map[int]bool{}
	for _, c := range a {
		ids[c.ID] = true
	}
	for _, c := range b {
		if !ids[c.ID] {
			return false
		}
	}
	return true
}
