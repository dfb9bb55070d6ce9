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

// coversTime is how long saved covers are kept if no run restores them. They end with the
// container at the latest.
const coversTime = 24 * time.Hour

// savedCovers are copies of the covers of an autofs mount. They outlive the mount and this
// process: a helper has the mount namespace open that has the copies, and an entry names
// the helper. If this run is killed, the next one restores the covers.
type savedCovers struct {
	copies *mounts.Covers
	entry  *journal.Entry[journal.SavedCovers]
	helper fdstore.Ref
}

// saveCovers copies the covers of a mount in the mount namespace of a process.
func (s *Session) saveCovers(ctx context.Context, process *nsenter.Process, m *container.Mount) (*savedCovers, error) {
	entry := journal.Covers.Of(s.journal, s.container.Init, m.ID)
	if entry.Exists() {
		return nil, journal.ErrPending
	}
	copies, err := mounts.CopyCovers(ctx, process, m.Path, m.Device)
	if err != nil {
		return nil, err
	}
	c := &savedCovers{copies: copies, entry: entry}
	var recorded func() error
	if c.helper, recorded, err = fdstore.StartUncommitted(fdstore.Request{
		Bound: s.container.Init, Lifetime: coversTime, Files: []*os.File{copies.Namespace()},
	}); err != nil {
		copies.Close()
		return nil, err
	}
	err = entry.Save(journal.SavedCovers{Path: m.Path, Device: m.Device, Helper: c.helper})
	if err = errors.Join(err, recorded()); err != nil {
		return nil, errors.Join(fmt.Errorf("save the covers of %q: %w", m.Path, err), c.drop(ctx))
	}
	return c, nil
}

// drop closes the copies, also those of the helper.
func (c *savedCovers) drop(ctx context.Context) error {
	return errors.Join(c.copies.Close(), dropEntry(ctx, c.helper, c.entry))
}

// dropEntry stops the helper and removes the entry. The entry is removed last, because it
// names the helper.
func dropEntry(ctx context.Context, h fdstore.Ref, entry *journal.Entry[journal.SavedCovers]) error {
	if err := h.Stop(ctx); err != nil {
		return err
	}
	return entry.Commit()
}

// keep closes this process's copies. The helper keeps its copies for a later run.
func (c *savedCovers) keep() error { return c.copies.Close() }

// restoreCovers restores the covers that interrupted runs have saved, if their mount was
// recreated and has no covers.
func (s *Session) restoreCovers(ctx context.Context) error {
	entries, err := journal.Covers.All(s.journal, s.container.Init)
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
		return dropEntry(ctx, saved.Helper, entry) // the covers were not detached
	}
	namespace, err := saved.Helper.Open(0)
	if errors.Is(err, fdstore.ErrGone) {
		if now != nil && len(table.Covers(now)) > 0 {
			err = nil // they were restored before
		}
		return errors.Join(err, entry.Commit())
	}
	if err != nil {
		return err
	}
	c := &savedCovers{copies: mounts.OpenCovers(saved.Path, saved.Device, namespace), entry: entry, helper: saved.Helper}
	if now == nil {
		return c.keep() // its unit may still mount it: left to the next run
	}
	if err := c.copies.Restore(ctx, s.container.Main().Process, mounts.DeviceOf(now)); err != nil {
		return errors.Join(err, c.keep())
	}
	return errors.Join(c.drop(ctx), s.container.ReadTables())
}

// autofsAt returns the autofs mount at a path, nil if there is none.
func autofsAt(t *mounts.Table, path string) *mounts.Mount {
	for _, m := range t.Autofs() {
		if m.Mountpoint == path {
			return m
		}
	}
	return nil
}
