package cure

import (
	"context"
	"errors"
	"fmt"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
)

// direction is the way in which a recovery completes an interrupted operation.
type direction string

const (
	rollBack    direction = "undo"
	rollForward direction = "finish"
)

// recovery undoes or finishes an interrupted operation, if there is one.
type recovery struct {
	operation string
	direction direction
	run       func(*Session, context.Context) error
}

// recoveries are the recoveries of all operations, in the order in which they run, before
// the container is surveyed.
var recoveries = []recovery{
	// The propagation of parent mounts must be restored before anything is mounted.
	{"the replacement of mounts", rollBack, (*Session).recoverReplacement},
	{"the removal of mounts", rollForward, (*Session).finishRemovals},
	// A job of systemd may still be running. After it the covers are restored, and then
	// the mount, with its covers, is copied to other namespaces.
	{"the restart of units", rollForward, (*Session).finishRestarts},
	// The helper of the interrupted run has released the processes; the mount is left.
	{"the parking of waiters", rollBack, (*Session).removeWaiterParking},
	// Parking mounts of a running daemon stay, because it will mount its triggers on them.
	{"the reload of automount", rollForward, (*Session).recoverReload},
}

// errUndone is the warning that an interrupted operation was undone.
var errUndone = errors.New("an earlier run was interrupted in it: undone")

// Recover undoes or finishes the operations of interrupted runs.
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
	return errors.Join(s.loadParkings((*journal.Entry[journal.TriggerParking]).Load), s.resumeParkings(ctx))
}

// finishRemovals removes the mounts that interrupted removals have put in the place of
// those that they removed.
func (s *Session) finishRemovals(ctx context.Context) error {
	var list []mountAt
	seen := map[mountAt]bool{}
	for _, sp := range s.container.Spaces {
		if sp.Table == nil {
			continue
		}
		for _, m := range sp.Table.Leftovers() {
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
