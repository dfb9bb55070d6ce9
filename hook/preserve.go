package hook

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// preserve works at CRIU's pre-resume: all processes are stopped, none waits on
// any mount, and the images can still be read. It recreates the mounts that a
// systemd serves with the device numbers that this systemd remembers, puts parking
// mounts in the place of stale triggers of automount, and has a helper keep the
// roots of mounts open that still need a repair.
func (r Runner) preserve(ctx context.Context, e Event) error {
	has, imagesErr := namedAutofs(e.ImageDir)
	if imagesErr == nil && !has {
		return nil
	}
	init, err := nsenter.Open(e.PID)
	if err != nil {
		return err
	}
	defer init.Close()
	if has {
		r.protect(init)
	}
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
			r.Warn(err) // without images systemd's state decides, later
			rec = &record{}
		}
	}
	if rec.Moment == Preserve || rec.Moment == Repair {
		return nil // called twice for this stage
	}
	r.Warn = collect(r.Warn, &rec.Warnings)
	sc, err := look(init, false)
	if err != nil {
		return errors.Join(e.unlessHost(err), rec.Holder.Stop(ctx))
	}
	defer sc.close()
	if !sc.hasAutofs() {
		return rec.Holder.Stop(ctx)
	}
	if !has {
		r.protect(init)
	}
	rec.Init, rec.Moment = init.Identity(), Preserve
	if err := r.preserveIn(ctx, sc, criu, rec); err != nil {
		r.Warn(err)
	}
	needed, err := sc.unserved(rec)
	if err != nil {
		r.Warn(err)
	}
	if err := r.hold(criu, rec, rec.keepRoots(sc, needed)); err != nil {
		r.Warn(err)
		rec.Roots = nil
	}
	if err := s.save(criu, rec); err != nil {
		return errors.Join(err, rec.Holder.Stop(ctx))
	}
	return nil
}

// lateRecord makes the record that Reserve would have made, holding nothing.
func (r Runner) lateRecord(e Event) (*record, error) {
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

// unserved are the mounts that still need a repair: direct and offset ones whose
// master does not know them.
func (s *scene) unserved(rec *record) ([]Mount, error) {
	list, err := s.listAutofs()
	if err == nil {
		err = s.findMasters(list) // all are stopped: what they have open is known
	}
	if err != nil {
		return nil, err
	}
	rec.describe(list, s.main().id)
	return slices.DeleteFunc(list, func(m Mount) bool { return !m.needsRepair() }), nil
}

// needsRepair reports whether the mount still does at the end of Preserve.
func (m *Mount) needsRepair() bool {
	return m.Master.PID != 0 && !m.outside() && !m.Parking && !m.knownHealthy() && m.Options.Type.Trigger()
}

// keepRoots lists the open roots of the mounts that need a repair, and notes
// their order in the record.
func (r *record) keepRoots(sc *scene, needed []Mount) []*os.File {
	r.Roots = nil
	var files []*os.File
	for i := range needed {
		key := rootKey{needed[i].Namespace, needed[i].ID}
		f := sc.roots[key]
		if f == nil {
			continue
		}
		r.Roots = append(r.Roots, heldRoot{Namespace: key.namespace, Mount: key.mount, Index: len(files)})
		files = append(files, f)
	}
	return files
}
