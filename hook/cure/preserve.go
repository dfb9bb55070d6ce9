package cure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

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

// Preserve recreates systemd's mounts with their old device numbers, and prepares the
// mounts of automount for its reload, while all processes of the container are stopped.
// It writes the results, and reasons for failures, into the handover. Mounts that it could
// not prepare are left to Repair.
func (s *Session) Preserve(ctx context.Context, criu *nsenter.Process, h *journal.Handover) error {
	h.NotPreserved = map[string]string{}
	list, err := s.container.Survey()
	if err != nil {
		return errors.Join(err, h.StopHelpers(ctx))
	}
	if err := s.journal.MarkConfirmed(s.container.Init, list); err != nil {
		s.warn(err)
	}
	h.Describe(list, s.container.Main().ID)
	if h.Awake, err = s.container.DelayTimers(list, time.Now().After(h.NoTimerBefore), h.Fractions); err != nil {
		s.warn(err) // Repair calls that systemd
	}
	replacements, err := s.recreateAll(ctx, h, list)
	if err != nil {
		s.warn(err)
	}
	defer closeTrees(replacements)
	s.openOneRoot(ctx, list) // not before the placeholders are closed: see sys.ExpandFiles
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
			s.warn(p.Err) // Repair parks its processes
		}
	}
	return s.verifyPreserved(h, list, replacements)
}

// recreateAll creates superblocks with the old device numbers for systemd's mounts.
func (s *Session) recreateAll(ctx context.Context, h *journal.Handover, list []container.Mount) ([]*mounts.Replacement, error) {
	picked := plan.ToPreserve(list)
	defer func() {
		if err := h.Lower.Abandon(); err != nil {
			s.warn(err)
		}
		h.Lower = fdstore.Ref{}
	}()
	picked = slices.DeleteFunc(picked, func(i int) bool {
		taken := slices.Contains(h.Taken, list[i].DeviceBefore)
		if taken {
			h.NotPreserved[list[i].Path] = anondev.Taken(list[i].DeviceBefore).Error()
		}
		return taken
	})
	if len(picked) == 0 {
		err := h.Helper.Stop(ctx)
		h.Helper = fdstore.Ref{}
		return nil, err
	}
	lock, err := s.journal.LockDevices(ctx)
	if err != nil {
		for _, i := range picked {
			h.NotPreserved[list[i].Path] = err.Error()
		}
		return nil, errors.Join(err, h.Helper.Stop(ctx))
	}
	defer lock.Close()
	pool, err := fillPool(ctx, h, list, picked)
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

// fillPool returns a pool with the device numbers that Reserve has reserved and all other
// free numbers below the highest wanted one. It stops the helper of Reserve.
func fillPool(ctx context.Context, h *journal.Handover, list []container.Mount, picked []int) (*anondev.Pool, error) {
	var wanted []uint64
	for _, i := range picked {
		wanted = append(wanted, list[i].DeviceBefore)
	}
	pool := anondev.New(wanted)
	var errs []error
	// A run that was killed may have stopped the helper. The numbers may still be free.
	held, err := h.Helper.OpenAll()
	if !errors.Is(err, fdstore.ErrGone) {
		errs = append(errs, err)
	}
	for _, f := range held {
		if f != nil {
			errs = append(errs, pool.Adopt(f))
		}
	}
	// A number becomes free only after the helper's copy is closed, too.
	ended := h.Helper.Kill()
	errs = append(errs, pool.Fill(ctx), ended(ctx))
	h.Helper = fdstore.Ref{}
	if err := errors.Join(errs...); err != nil {
		pool.Close()
		return nil, err
	}
	return pool, nil
}

// recreateServedBy creates superblocks with the old device numbers for mounts of one
// master.
//
// Since Linux 6.19 (922a6f34c175) a mount that is not shared is served only in the mount
// namespace where its superblock was created: in another one an access fails with EPERM.
// So all are created in the master's namespace, which is entered once.
func (s *Session) recreateServedBy(ctx context.Context, h *journal.Handover, pool *anondev.Pool, list []container.Mount, picked []int) []*mounts.Replacement {
	var replacements []*mounts.Replacement
	p := s.container.Masters[list[picked[0]].Master.PID]
	err := p.InMountNamespace(context.WithoutCancel(ctx), func(*nsenter.Thread) error {
		for _, i := range picked {
			m := &list[i]
			f, err := pool.Create(ctx, m.DeviceBefore, func() (*os.File, error) { return recreate(p.Process, m, h.OldDevice(m.Path)) })
			if err != nil {
				h.NotPreserved[m.Path] = err.Error()
				continue
			}
			replacements = append(replacements, &mounts.Replacement{Path: m.Path, Old: m.Device, New: f, Device: m.DeviceBefore})
		}
		return nil
	})
	if err != nil {
		for _, i := range picked {
			h.NotPreserved[list[i].Path] = err.Error()
		}
	}
	return replacements
}

// recreate creates a superblock with the options and the pipe of the mount, in the mount
// namespace of the calling thread. before has options that CRIU drops.
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
		StrictExpire: o.StrictExpire || before.StrictExpire, Ignore: o.Ignore || before.Ignore,
	})
}

// verifyPreserved reads the mounts again. A mount is preserved if every namespace that
// showed the old superblock shows the new one instead, once, with the same covers. Then
// the old superblock is made catatonic, so that it has no waiters.
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
	shown := mountsByLocation(after)
	var cured []*container.Mount
	for _, replaced := range replacements {
		var recreated []*container.Mount
		err := replaced.Err
		for _, i := range byPath[replaced.Path] {
			old := &before[i]
			if old.Device != replaced.Old {
				continue
			}
			now := shown[location{old.Namespace, old.Path}]
			if now == nil || now.Device != replaced.Device || !sameCovers(old.Below, now.Below) {
				err = errors.Join(err, fmt.Errorf("mount namespace %d does not show the new mount instead of the old one", old.Namespace))
				continue
			}
			mount := *now
			mount.Master = old.Master
			recreated = append(recreated, &mount)
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
		cured = append(cured, recreated...)
	}
	return s.journal.AddConfirmed(s.container.Init, cured)
}

// sameCovers compares covers by mount id; autofs mounts by path, because they may have been
// recreated, too.
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
