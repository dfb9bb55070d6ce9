package cure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/helper/fdstore"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// coversTime bounds how long covers are kept for a run that was killed, or that
// could not put them back; they are not kept longer than the container lives.
const coversTime = 24 * time.Hour

// savedCovers are the covers of an autofs mount, kept so that they outlive both the
// mount and this program: a helper has the mount namespace open in which the
// copies are, and the journal says so. The run after one that was killed puts them
// back.
type savedCovers struct {
	kept   *mounts.Kept
	entry  *journal.Entry[journal.SavedCovers]
	helper fdstore.Ref
}

// saveCovers keeps the covers of the mount, before its unit is restarted.
func (s *Session) saveCovers(ctx context.Context, in *nsenter.Process, m *container.Mount) (*savedCovers, error) {
	entry := journal.CoversSaved.Of(s.journal, s.container.Init, m.ID)
	if entry.Exists() {
		return nil, journal.ErrPending
	}
	kept, err := mounts.Keep(ctx, in, m.Path, m.Device)
	if err != nil {
		return nil, err
	}
	c := &savedCovers{kept: kept, entry: entry}
	var recorded func() error
	if c.helper, recorded, err = fdstore.StartUnrecorded(fdstore.Request{
		Bound: s.container.Init, Lifetime: coversTime, Files: []*os.File{kept.Namespace()},
	}); err != nil {
		kept.Close()
		return nil, err
	}
	err = entry.Save(journal.SavedCovers{Path: m.Path, Device: m.Device, Holder: c.helper})
	if err = errors.Join(err, recorded()); err != nil {
		return nil, errors.Join(fmt.Errorf("record the covers of %q: %w", m.Path, err), c.drop(ctx))
	}
	return c, nil
}

// drop closes the copies, once the covers are back. The entry goes last: without
// it no run would find the helper.
func (c *savedCovers) drop(ctx context.Context) error {
	return errors.Join(c.kept.Close(), forgetCovers(ctx, c.helper, c.entry))
}

func forgetCovers(ctx context.Context, h fdstore.Ref, entry *journal.Entry[journal.SavedCovers]) error {
	if err := h.Stop(ctx); err != nil {
		return err
	}
	return entry.Commit()
}

// keep keeps the copies for a later run.
func (c *savedCovers) keep() error { return c.kept.Close() }

// restoreCovers puts the covers back that an interrupted run has kept, where the
// mount that they lay on has been recreated and is bare.
func (s *Session) restoreCovers(ctx context.Context) error {
	entries, err := journal.CoversSaved.All(s.journal, s.container.Init)
	errs := []error{err}
	for _, entry := range entries {
		errs = append(errs, s.restoreCoversOf(ctx, entry))
	}
	return errors.Join(errs...)
}

func (s *Session) restoreCoversOf(ctx context.Context, entry *journal.Entry[journal.SavedCovers]) error {
	saved, err := entry.Load()
	if err != nil {
		return err
	}
	table := s.container.Main().Table
	now := autofsAt(table, saved.Path)
	if now != nil && mounts.DeviceOf(now) == saved.Device {
		return forgetCovers(ctx, saved.Holder, entry) // nothing was detached
	}
	namespace, err := saved.Holder.Open(0)
	if errors.Is(err, fdstore.ErrGone) {
		if now != nil && len(table.Stack(now)) > 0 {
			err = nil // all was put back before
		}
		return errors.Join(err, entry.Commit())
	}
	if err != nil {
		return err
	}
	c := &savedCovers{kept: mounts.Resume(saved.Path, saved.Device, namespace), entry: entry, helper: saved.Holder}
	if now == nil {
		return c.keep() // its unit may still mount it: the next run looks again
	}
	if err := c.kept.PutBack(ctx, s.container.Main().Process, mounts.DeviceOf(now)); err != nil {
		return errors.Join(err, c.keep())
	}
	return errors.Join(c.drop(ctx), s.container.ReadTables())
}

// autofsAt is the autofs mount at a path, nil if there is none.
func autofsAt(t *mounts.Table, path string) *mounts.Mount {
	for _, m := range t.Autofs() {
		if m.Mountpoint == path {
			return m
		}
	}
	return nil
}
