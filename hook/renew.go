package hook

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/device"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/helper"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// preserveIn gives systemd's mounts their old numbers back, and prepares those of
// automount for its reload: no process of the container runs. What could not be
// done is noted in the record, with the reason, or left to Repair.
func (r Runner) preserveIn(ctx context.Context, sc *scene, criu *nsenter.Process, rec *record) error {
	rec.NotPreserved = map[string]string{}
	list, err := sc.survey()
	if err != nil {
		return errors.Join(err, rec.Holder.Stop(ctx))
	}
	if err := (store{r.Directory}).markSettled(sc.init, list); err != nil {
		r.Warn(err)
	}
	rec.describe(list, sc.main().id)
	if err := sc.openRoots(ctx, everyRoot); err != nil {
		r.Warn(err)
	}
	replacements, err := r.recreateAll(ctx, sc, rec, list)
	if err != nil {
		r.Warn(err)
	}
	defer func() {
		for _, r := range replacements {
			r.New.Close()
		}
	}()
	r.detachKeys(ctx, sc, rec, list)
	parked := r.parkTriggers(ctx, sc, criu, list)
	if len(replacements)+len(parked) == 0 {
		return nil
	}
	if err := (store{r.Directory}).replace(ctx, sc.init, sc.mountSpaces(), append(parked, replacements...)); err != nil {
		r.Warn(err)
	}
	for _, p := range parked {
		if p.Err != nil {
			r.Warn(p.Err) // Repair parks it
		}
	}
	return r.verifyPreserved(sc, rec, list, replacements)
}

// recreateAll makes superblocks with the old numbers for systemd's mounts.
func (r Runner) recreateAll(ctx context.Context, sc *scene, rec *record, list []Mount) ([]*mounts.Replacement, error) {
	picked := toPreserve(list)
	if len(picked) == 0 {
		err := rec.Holder.Stop(ctx)
		rec.Holder = helper.Ref{}
		return nil, err
	}
	lock, err := (store{r.Directory}).lockDevices(ctx)
	if err != nil {
		for _, i := range picked {
			rec.NotPreserved[list[i].Path] = err.Error()
		}
		return nil, errors.Join(err, rec.Holder.Stop(ctx))
	}
	defer lock.Close()
	pool, err := adopt(ctx, rec, list, picked)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	var replacements []*mounts.Replacement
	for len(picked) > 0 {
		n := 1
		for n < len(picked) && list[picked[n]].Master.PID == list[picked[0]].Master.PID {
			n++
		}
		replacements = append(replacements, sc.takeNumbers(ctx, rec, pool, list, picked[:n])...)
		picked = picked[n:]
	}
	return replacements, nil
}

// adopt takes over the numbers that Reserve held, and fills all other free
// ones below the highest wanted.
func adopt(ctx context.Context, rec *record, list []Mount, picked []int) (*device.Pool, error) {
	var wanted []uint64
	for _, i := range picked {
		wanted = append(wanted, list[i].DeviceBefore)
	}
	pool := device.New(wanted)
	var errs []error
	// A holder that is gone was ended by a run that was killed: the numbers may
	// still be free.
	held, err := rec.Holder.OpenAll()
	if !errors.Is(err, helper.ErrGone) {
		errs = append(errs, err)
	}
	for _, f := range held {
		if f != nil {
			errs = append(errs, pool.Adopt(f))
		}
	}
	// Its copies must be closed for the numbers to become free.
	errs = append(errs, rec.Holder.Stop(ctx), pool.Fill(ctx))
	rec.Holder = helper.Ref{}
	if err := errors.Join(errs...); err != nil {
		pool.Close()
		return nil, err
	}
	return pool, nil
}

// takeNumbers makes superblocks with the old numbers for mounts of one master.
//
// From Linux 6.19 on (922a6f34c175) a mount that propagates nothing is served
// only in the mount namespace where its superblock was made: elsewhere an access
// ends with EPERM. So all are made in the master's, which is entered once.
func (s *scene) takeNumbers(ctx context.Context, rec *record, pool *device.Pool, list []Mount, picked []int) []*mounts.Replacement {
	var made []*mounts.Replacement
	p := s.masters[list[picked[0]].Master.PID]
	err := p.InMountNamespace(context.WithoutCancel(ctx), func(*nsenter.Thread) error {
		for _, i := range picked {
			m := &list[i]
			f, err := pool.Take(ctx, m.DeviceBefore, func() (*os.File, error) { return s.recreate(p.Process, m, rec.before(m.Path)) })
			if err != nil {
				rec.NotPreserved[m.Path] = err.Error()
				continue
			}
			made = append(made, &mounts.Replacement{Path: m.Path, Old: m.Device, New: f, Device: m.DeviceBefore})
		}
		return nil
	})
	if err != nil {
		for _, i := range picked {
			rec.NotPreserved[list[i].Path] = err.Error()
		}
	}
	return made
}

// recreate makes a superblock like that of the mount, on the pipe that its
// master reads, in the namespace of the calling thread.
func (s *scene) recreate(p *nsenter.Process, m *Mount, before oldDevice) (*os.File, error) {
	writer, err := p.OpenFileDescriptor(m.Master.PipeFD, unix.S_IFIFO, unix.O_WRONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	defer writer.Close()
	o := m.Options
	return autofs.Create(autofs.CreateOptions{
		PipeWriter: writer, ProcessGroup: o.ProcessGroup, Type: o.Type, Timeout: o.Timeout,
		MinProto: o.MinProto, MaxProto: o.MaxProto, UID: o.UID, GID: o.GID, Source: m.Source,
		StrictExpire: o.StrictExpire || before.StrictExpire, Ignore: o.Ignore || before.Ignore, // CRIU drops them
	})
}

func (s *scene) mountSpaces() []mounts.Space {
	var list []mounts.Space
	for _, sp := range s.spaces {
		if sp.table != nil {
			list = append(list, mounts.Space{Process: sp.process, Table: sp.table})
		}
	}
	return list
}

// verifyPreserved looks at the mounts again. A mount counts as preserved if
// every namespace that showed the old superblock shows the new one in its
// place, once, with the same covers. Then the old superblock is made catatonic:
// no process can be left waiting on it.
func (r Runner) verifyPreserved(sc *scene, rec *record, before []Mount, replacements []*mounts.Replacement) error {
	if err := sc.readTables(); err != nil {
		return err
	}
	after, err := sc.listAutofs()
	if err != nil {
		return err
	}
	byPath := map[string][]int{}
	for i := range before {
		byPath[before[i].Path] = append(byPath[before[i].Path], i)
	}
	shown := placesOf(after)
	var cured []settled
	for _, replaced := range replacements {
		var these []settled
		err := replaced.Err
		for _, i := range byPath[replaced.Path] {
			old := &before[i]
			if old.Device != replaced.Old {
				continue
			}
			now := shown[place{old.Namespace, old.Path}]
			if now == nil || now.Device != replaced.Device || !sameCovers(old.Below, now.Below) {
				err = errors.Join(err, fmt.Errorf("mount namespace %d does not show the new mount in the place of the old one", old.Namespace))
				continue
			}
			mount := *now
			mount.Master = old.Master
			these = append(these, mount.settled())
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
		cured = append(cured, these...)
	}
	return (store{r.Directory}).alsoSettled(sc.init, cured)
}

// sameCovers compares what lies on a mount by the kernel's mount ids; autofs
// mounts by their paths, for they may have been recreated as well.
func sameCovers(a, b []Cover) bool {
	if len(a) != len(b) {
		return false
	}
	ids, anew := map[int]bool{}, map[string]bool{}
	for _, c := range a {
		ids[c.ID] = true
		anew[c.Path] = anew[c.Path] || c.Type == "autofs"
	}
	for _, c := range b {
		if !ids[c.ID] && (c.Type != "autofs" || !anew[c.Path]) {
			return false
		}
	}
	return true
}
