package cure

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

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

// copyElsewhere replaces the old mount at a path by a copy of the new one, in the mount
// namespaces to which the new one has not propagated. oldDevice and newDevice are their
// st_dev; newCopy makes the copy.
func (s *Session) copyElsewhere(ctx context.Context, path string, oldDevice, newDevice uint64, newCopy func() (*os.File, error)) error {
	if len(s.showing(path, oldDevice, newDevice)) == 0 {
		return nil // by the tables as last read
	}
	if err := s.container.ReadTables(); err != nil {
		return err
	}
	others := s.showing(path, oldDevice, newDevice)
	if len(others) == 0 {
		return nil
	}
	tree, err := newCopy()
	if err != nil {
		return err
	}
	defer tree.Close()
	r := &mounts.Replacement{Path: path, Old: oldDevice, New: tree, Device: newDevice}
	return errors.Join(s.replace(ctx, others, []*mounts.Replacement{r}), r.Err)
}

// showing returns the mount namespaces that show the old mount and not the new one.
func (s *Session) showing(path string, oldDevice, newDevice uint64) []mounts.Space {
	return slices.DeleteFunc(s.container.MountSpaces(), func(sp mounts.Space) bool {
		return !sp.Shows(path, oldDevice) || sp.Shows(path, newDevice)
	})
}

// closeTrees closes the new mounts of replacements.
func closeTrees(list []*mounts.Replacement) {
	for _, r := range list {
		r.New.Close()
	}
}
