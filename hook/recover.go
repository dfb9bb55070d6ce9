package hook

import (
	"context"
	"errors"
	"fmt"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
)

// direction is what a recovery does with an interrupted operation.
type direction string

const (
	rollBack    direction = "undo"
	rollForward direction = "finish"
)

// recovery finishes or undoes an operation that an interrupted run has left half
// done. It does nothing if there is none.
type recovery struct {
	operation string
	direction direction
	run       func(ctx context.Context, s store, sc *scene) error
}

// recoveries are all operations that a run can be interrupted in, in the order in
// which they are recovered, before the container is surveyed.
var recoveries = []recovery{
	// Parents must have their own propagation again before anything is mounted.
	{"the replacement of mounts", rollBack, func(ctx context.Context, s store, sc *scene) error {
		undone, err := s.undoReplacing(ctx, sc.init, sc.mountSpaces())
		if undone {
			err = errors.Join(err, errUndone, sc.readTables())
		}
		return err
	}},
	{"the removal of mounts", rollForward, func(ctx context.Context, s store, sc *scene) error { return sc.removeFills(ctx, s) }},
	// systemd may still be at work on a job: covers are put back after it, and other
	// namespaces get what is in the main one then.
	{"the restart of units", rollForward, func(ctx context.Context, s store, sc *scene) error { return s.finishRestarts(ctx, sc) }},
	// The helper of that run has released the processes; only the mount is left.
	{"the parking of waiters", rollBack, func(ctx context.Context, s store, sc *scene) error { return s.finishGate(ctx, sc) }},
	// Last: those that a living daemon will mount its triggers on stay for its reload.
	{"the reload of automount", rollForward, func(ctx context.Context, s store, sc *scene) error {
		return errors.Join(sc.loadParkings(s), sc.resumeParkings(ctx, s))
	}},
}

// errUndone tells that an interrupted run had left something.
var errUndone = errors.New("an earlier run was ended in the middle of it: undone")

// recover carries out the recoveries.
func (r Runner) recover(ctx context.Context, s store, sc *scene) {
	for _, rec := range recoveries {
		if err := rec.run(ctx, s, sc); err != nil {
			r.Warn(fmt.Errorf("%s %s: %w", rec.direction, rec.operation, err))
		}
	}
}

// removeFills takes away what an interrupted removal of mounts has left.
func (s *scene) removeFills(ctx context.Context, st store) error {
	var list []stackedPlace
	seen := map[stackedPlace]bool{}
	for _, sp := range s.spaces {
		if sp.table == nil {
			continue
		}
		for _, m := range sp.table.Fills() {
			place := stackedPlace{m.Mountpoint, mounts.DeviceOf(m)}
			if !seen[place] {
				seen[place] = true
				list = append(list, place)
			}
		}
	}
	if len(list) == 0 {
		return nil
	}
	return errors.Join(s.removeIn(ctx, st, s.mountSpaces(), list), s.readTables())
}
