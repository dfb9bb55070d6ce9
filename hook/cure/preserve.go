package cure

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/anondev"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/helper/fdstore"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
	"golang.org/x/sys/unix"
)

// Preserve gives systemd's mounts their old numbers back, and prepares those of
// automount for its reload: no process of the container runs. What could not be
// done is noted in the handover, with the reason, or left to Repair.
func (s *Session) Preserve(ctx context.Context, criu *nsenter.Process, h *journal.Handover) error {
	h.NotPreserved = map[string]string{}
	list, err := s.container.Survey()
	if err != nil {
		return errors.Join(err, h.Holder.Stop(ctx))
	}
	if err := s.journal.MarkConfirmed(s.container.Init, list); err != nil {
		s.warn(err)
	}
	h.Describe(list, s.container.Main().ID)
	if err := s.container.OpenRoots(ctx, container.EveryRoot); err != nil {
		s.warn(err)
	}
	replacements, err := s.recreateAll(ctx, h, list)
	if err != nil {
		s.warn(err)
	}
	defer closeTrees(replacements)
	s.detachStaleKeys(ctx, h, list)
	parked := s.parkTriggers(ctx, criu, list)
	if len(replacements)+len(parked) == 0 {
		return nil
	}
	if err := s.replace(ctx, s.container.MountSpaces(), append(parked, replacements...)); err != nil {
		s.warn(err)
	}
	for _, p := range parked {
		if p.Err != nil {
			s.warn(p.Err) // Repair parks it
		}
	}
	return s.verifyPreserved(h, list, replacements)
}

// recreateAll makes superblocks with the old numbers for systemd's mounts.
func (s *Session) recreateAll(ctx context.Context, h *journal.Handover, list []container.Mount) ([]*mounts.Replacement, error) {
	picked := plan.ToPreserve(list)
	if len(picked) == 0 {
		err := h.Holder.Stop(ctx)
		h.Holder = fdstore.Ref{}
		return nil, err
	}
	lock, err := s.journal.LockDevices(ctx)
	if err != nil {
		for _, i := range picked {
			h.NotPreserved[list[i].Path] = err.Error()
		}
		return nil, errors.Join(err, h.Holder.Stop(ctx))
	}
	defer lock.Close()
	pool, err := adopt(ctx, h, list, picked)
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
		replacements = append(replacements, s.recreateServedBy(ctx, h, pool, list, picked[:n])...)
		picked = picked[n:]
	}
	return replacements, nil
}

// adopt takes over the numbers that Reserve held, and fills all other free
// ones below the highest wanted.
func adopt(ctx context.Context, h *journal.Handover, list []container.Mount, picked []int) (*anondev.Pool, error) {
	var wanted []uint64
	for _, i := range picked {
		wanted = append(wanted, list[i].DeviceBefore)
	}
	pool := anondev.New(wanted)
	var errs []error
	// A holder that is gone was ended by a run that was killed: the numbers may
	// still be free.
	held, err := h.Holder.OpenAll()
	if !errors.Is(err, fdstore.ErrGone) {
		errs = append(errs, err)
	}
	for _, f := range held {
		if f != nil {
			errs = append(errs, pool.Adopt(f))
		}
	}
	// Its copies must be closed for the numbers to become free.
	errs = append(errs, h.Holder.Stop(ctx), pool.Fill(ctx))
	h.Holder = fdstore.Ref{}
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
func (s *Session) recreateServedBy(ctx context.Context, h *journal.Handover, pool *anondev.Pool, list []container.Mount, picked []int) []*mounts.Replacement {
	var made []*mounts.Replacement
	p := s.container.Masters[list[picked[0]].Master.PID]
	err := p.InMountNamespace(context.WithoutCancel(ctx), func(*nsenter.Thread) error {
		for _, i := range picked {
			m := &list[i]
			f, err := pool.Take(ctx, m.DeviceBefore, func() (*os.File, error) { return recreate(p.Process, m, h.Before(m.Path)) })
			if err != nil {
				h.NotPreserved[m.Path] = err.Error()
				continue
			}
			made = append(made, &mounts.Replacement{Path: m.Path, Old: m.Device, New: f, Device: m.DeviceBefore})
		}
		return nil
	})
	if err != nil {
		for _, i := range picked {
			h.NotPreserved[list[i].Path] = err.Error()
		}
	}
	return made
}

// recreate makes a superblock like that of the mount, on the pipe that its
// master reads, in the namespace of the calling thread.
func recreate(p *nsenter.Process, m *container.Mount, before journal.OldDevice) (*os.File, error) {
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

// verifyPreserved looks at the mounts again. A mount counts as preserved if
// every namespace that showed the old superblock shows the new one in its
// place, once, with the same covers. Then the old superblock is made catatonic:
// no process can be left waiting on it.
func (s *Session) verifyPreserved(h *journal.Handover, before []container.Mount, replacements []*mounts.Replacement) error {
	if err := s.container.ReadTables(); err != nil {
		return err
	}
	after, err := s.container.ListAutofs()
	if err != nil {
		return err
	}
	byPath := map[string][]int{}
	for i := range before {
		byPath[before[i].Path] = append(byPath[before[i].Path], i)
	}
	shown := placesOf(after)
	var cured []*container.Mount
	for _, replaced := range replacements {
		var these []*container.Mount
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
			these = append(these, &mount)
			key := old.Key()
			if root := s.container.Roots[key]; root != nil && err == nil {
				err = autofs.Catatonic(root)
				root.Close()
				delete(s.container.Roots, key)
			}
		}
		if err != nil {
			h.NotPreserved[replaced.Path] = err.Error()
			continue
		}
		h.Preserved = append(h.Preserved, replaced.Path)
		cured = append(cured, these...)
	}
	return s.journal.AlsoConfirm(s.container.Init, cured)
}

// sameCovers compares what lies on a mount by the kernel's mount ids; autofs
// mounts by their paths, for they may have been recreated as well.
func sameCovers(a, b []container.Cover) bool {
	if len(a) != len(b) {
		return false
	}
	ids, autofsAt := map[int]bool{}, map[string]bool{}
	for _, c := range a {
		ids[c.ID] = true
		autofsAt[c.Path] = autofsAt[c.Path] || c.Type == "autofs"
	}
	for _, c := range b {
		if !ids[c.ID] && (c.Type != "autofs" || !autofsAt[c.Path]) {
			return false
		}
	}
	return true
}
