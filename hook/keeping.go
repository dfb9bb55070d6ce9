package hook

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/helper"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// keepingTime bounds how long covers are kept for a run that was killed, or that
// could not put them back; they are not kept longer than the container lives.
const keepingTime = 24 * time.Hour

// keeping is what covers an autofs mount, kept so that it outlives both the
// mount and this program: a holder has the mount namespace open in which the
// copies are, and a record says so. A run that finds the record of one that was
// killed puts the covers back.
type keeping struct {
	kept   *mounts.Kept
	note   *note
	helper helper.Ref
}

var keepingNote = noteKind{"covers", ".json", "record of covering mounts"}

// keepingRecord is a record's form.
type keepingRecord struct {
	Version int        `json:"version"`
	Path    string     `json:"path"`
	Device  uint64     `json:"device"`
	Holder  helper.Ref `json:"holder"`
}

// keep keeps what covers the mount of the container, before its unit is
// restarted.
func (s store) keep(ctx context.Context, init, in *nsenter.Process, m *Mount) (*keeping, error) {
	n := keepingNote.of(s, init, m.ID)
	if n.exists() {
		return nil, errBegun
	}
	kept, err := mounts.Keep(ctx, in, m.Path, m.Device)
	if err != nil {
		return nil, err
	}
	k := &keeping{kept: kept, note: n}
	var recorded func() error
	if k.helper, recorded, err = helper.StartUnrecorded(helper.Request{
		Bound: init, Lifetime: keepingTime, Files: []*os.File{kept.Namespace()},
	}); err != nil {
		kept.Close()
		return nil, err
	}
	err = k.note.save(keepingRecord{Version: recordVersion, Path: m.Path, Device: m.Device, Holder: k.helper})
	if err = errors.Join(err, recorded()); err != nil {
		return nil, errors.Join(fmt.Errorf("record of what covers %q: %w", m.Path, err), k.drop(ctx))
	}
	return k, nil
}

// drop closes the copies, once the covers are back. The record goes last: without
// it no run would find the holder.
func (k *keeping) drop(ctx context.Context) error {
	return errors.Join(k.kept.Close(), forgetKeeping(ctx, k.helper, k.note))
}

func forgetKeeping(ctx context.Context, h helper.Ref, n *note) error {
	if err := h.Stop(ctx); err != nil {
		return err
	}
	return n.remove()
}

// leave keeps the copies for a later run.
func (k *keeping) leave() error { return k.kept.Close() }

// finishKeeping puts back what a killed run kept for this container, where the
// mount that it lay on has been renewed and is bare.
func (s store) finishKeeping(ctx context.Context, sc *scene) error {
	notes, err := keepingNote.all(s, sc.init)
	errs := []error{err}
	for _, n := range notes {
		errs = append(errs, finishOneKeeping(ctx, sc, n))
	}
	return errors.Join(errs...)
}

func finishOneKeeping(ctx context.Context, sc *scene, n *note) error {
	var rec keepingRecord
	if err := n.loadOrRemove(&rec); err != nil {
		return err
	}
	table := sc.main().table
	now := autofsAt(table, rec.Path)
	if now != nil && mounts.DeviceOf(now) == rec.Device {
		return forgetKeeping(ctx, rec.Holder, n) // nothing was taken away
	}
	namespace, err := rec.Holder.Open(0)
	if errors.Is(err, helper.ErrGone) {
		if now != nil && len(table.Stack(now)) > 0 {
			err = nil // all was put back before
		}
		return errors.Join(err, n.remove())
	}
	if err != nil {
		return err
	}
	k := &keeping{kept: mounts.Resume(rec.Path, rec.Device, namespace), note: n, helper: rec.Holder}
	if now == nil {
		return k.leave() // its unit may still mount it: the next run looks again
	}
	if err := k.kept.PutBack(ctx, sc.main().process, mounts.DeviceOf(now)); err != nil {
		return errors.Join(err, k.leave())
	}
	return errors.Join(k.drop(ctx), sc.readTables())
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
