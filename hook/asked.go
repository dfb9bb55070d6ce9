package hook

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
)

// errBegun refuses an operation that an earlier run has left unfinished.
var errBegun = errors.New("what an earlier run began with it is not finished yet: repair again")

// finishTime bounds how long a run waits for what an earlier one has asked for: the
// other mounts need time, too.
const finishTime = 2 * time.Second

// finishRestarts does what killed runs have not come to after they had a unit
// restarted.
func (s store) finishRestarts(ctx context.Context, sc *scene) error {
	var begun []*note
	for _, kind := range []*noteKind{&keepingNote, &renewingNote} {
		notes, err := kind.all(s, sc.init)
		if err != nil {
			return err
		}
		begun = append(begun, notes...)
	}
	if len(begun) == 0 {
		return nil
	}
	if err := awaitAsked(ctx, sc, begun); err != nil {
		return err // the notes stay, and nothing else is begun with these mounts
	}
	return errors.Join(s.finishKeeping(ctx, sc), s.finishRenewing(ctx, sc))
}

// awaitAsked waits until systemd has done what killed runs have asked it for: a
// job that waits for others, or was not even read yet, would detach mounts while
// this run thinks that nothing was begun. A unit that could not be started again
// is started.
func awaitAsked(ctx context.Context, sc *scene, begun []*note) error {
	paths := map[string]bool{}
	for _, n := range begun {
		var of struct {
			Path string `json:"path"`
		}
		if n.load(&of) == nil {
			paths[of.Path] = true
		}
	}
	if len(paths) == 0 {
		return nil
	}
	manager, err := sc.manager(ctx, sc.init.PID())
	if err != nil {
		return fmt.Errorf("finish what an earlier run has begun: %w", err)
	}
	wait, cancel := context.WithTimeout(ctx, finishTime)
	defer cancel()
	var errs []error
	for path := range paths {
		errs = append(errs, manager.AwaitAutomount(wait, master.UnitNameFromPath(path, "automount")))
	}
	return errors.Join(append(errs, sc.readTables())...)
}
