package cure

import (
	"context"
	"errors"
	"fmt"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
)

// direction is what a recovery does with an interrupted operation.
type direction string

const (
	rollBack    direction = "undo"
	rollForward direction = "finish"
)

// recovery undoes or finishes an operation that an interrupted run has left half
// done. It does nothing if there is none.
type recovery struct {
	operation string
	direction direction
	run       func(*Session, context.Context) error
}

// recoveries are all operations that a run can be interrupted in, in the order in
// which they are recovered, before the container is surveyed.
var recoveries = []recovery{
	// Parents must have their own propagation again before anything is mounted.
	{"the replacement of mounts", rollBack, (*Session).recoverReplacement},
	{"the removal of mounts", rollForward, (*Session).removeFills},
	// systemd may still be at work on a job: covers are put back after it, and other
	// namespaces get copies of what is in the main one then.
	{"the restart of units", rollForward, (*Session).finishRestarts},
	// The helper of that run has released the processes; only the mount is left.
	{"the parking of waiters", rollBack, (*Session).removeWaitersParking},
	// Last: parking mounts on which a living daemon will mount its triggers stay for
	// its reload.
	{"the reload of automount", rollForward, (*Session).recoverReload},
}

// errUndone tells that an interrupted run had left something.
var errUndone = errors.New("an earlier run was ended in the middle of it: undone")

// Recover carries out the recoveries.
func (s *Session) Recover(ctx context.Context) {
	for _, r := range recoveries {
		if err := r.run(s, ctx); err != nil {
			s.warn(fmt.Errorf("%s %s: %w", r.direction, r.operation, err))
		}
	}
}

func (s *Session) recoverReplacement(ctx context.Context) error {
	undone, err := s.undoReplacement(ctx, s.container.MountSpaces())
	if undone {
		err = errors.Join(err, errUndone, s.container.ReadTables())
	}
	return err
}

func (s *Session) recoverReload(ctx context.Context) error {
	return errors.Join(s.loadParkings((*journal.Entry[journal.ParkedTriggers]).Load), s.resumeParkings(ctx))
}

// removeFills removes the mounts that an interrupted removal has left.
func (s *Session) removeFills(ctx context.Context) error {
	var list []mountAt
	seen := map[mountAt]bool{}
	for _, sp := range s.container.Spaces {
		if sp.Table == nil {
			continue
		}
		for _, m := range sp.Table.Fills() {
			place := mountAt{path: m.Mountpoint, device: mounts.DeviceOf(m)}
			if !seen[place] {
				seen[place] = true
				list = append(list, place)
			}
		}
	}
	if len(list) == 0 {
		return nil
	}
	return errors.Join(s.removeIn(ctx, s.container.MountSpaces(), list), s.container.ReadTables())
}
