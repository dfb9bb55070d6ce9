package hook

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// A run that is killed while it replaces mounts may leave parents shared that
// were not, and new mounts beneath old ones. So it notes first what it is about
// to change, and the next run undoes that.

var replacingNote = noteKind{"containers", ".replacing", "note of mounts that are replaced"}

// replacingRecord is the form of the note.
type replacingRecord struct {
	Version int            `json:"version"`
	Places  []mounts.Place `json:"places"`
}

// replace replaces mounts in the given namespaces of the container. What fails
// is undone.
func (s store) replace(ctx context.Context, init *nsenter.Process, spaces []mounts.Space, list []*mounts.Replacement) error {
	n := replacingNote.of(s, init)
	if n.exists() { // and is not undone here: these may be some of its namespaces only
		return errors.New("what an earlier run began with mounts is not undone yet")
	}
	err := mounts.Replace(ctx, spaces, list, func(places []mounts.Place) error {
		return n.save(replacingRecord{Version: recordVersion, Places: places})
	})
	failed := err != nil
	for _, r := range list {
		failed = failed || r.Err != nil
	}
	if failed {
		_, undoErr := s.undoReplacing(ctx, init, spaces)
		return errors.Join(err, undoErr)
	}
	return errors.Join(err, n.remove())
}

// undoReplacing undoes what a run has not finished, and reports whether there was
// anything.
func (s store) undoReplacing(ctx context.Context, init *nsenter.Process, spaces []mounts.Space) (undone bool, err error) {
	n := replacingNote.of(s, init)
	var rec replacingRecord
	err = n.loadOrRemove(&rec)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	undone, err = mounts.Undo(ctx, spaces, rec.Places)
	if err != nil {
		return undone, fmt.Errorf("undo the replacing of mounts that was not finished: %w", err)
	}
	return undone, n.remove()
}
