package cure

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
)

// replace replaces mounts in the given namespaces of the container, and undoes failed
// replacements. Errors of single mounts are in their Err.
//
// A run that is killed meanwhile may leave parent mounts shared that were not, and new
// mounts beneath old ones. The intent lists the places.
func (s *Session) replace(ctx context.Context, spaces []mounts.Space, list []*mounts.Replacement) error {
	intent := journal.Replacements.Of(s.journal, s.container.Init)
	if intent.Exists() { // undone by Recover only, which has all namespaces
		return journal.ErrPending
	}
	err := mounts.Replace(ctx, spaces, list, func(places []mounts.Place) error {
		return intent.Save(journal.Replacement{Places: places})
	})
	failed := err != nil
	for _, r := range list {
		failed = failed || r.Err != nil
	}
	if failed {
		_, undoErr := s.undoReplacement(ctx, spaces)
		return errors.Join(err, undoErr)
	}
	return errors.Join(err, intent.Commit())
}

// undoReplacement undoes an interrupted replacement in the given namespaces, and reports
// whether there was one.
func (s *Session) undoReplacement(ctx context.Context, spaces []mounts.Space) (undone bool, err error) {
	intent := journal.Replacements.Of(s.journal, s.container.Init)
	replacement, err := intent.Load()
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	undone, err = mounts.Undo(ctx, spaces, replacement.Places)
	if err != nil {
		return undone, fmt.Errorf("undo an interrupted replacement of mounts: %w", err)
	}
	return undone, intent.Commit()
}

// closeTrees closes the new mounts of replacements.
func closeTrees(list []*mounts.Replacement) {
	for _, r := range list {
		r.New.Close()
	}
}
