package hook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// A run that is killed while it replaces mounts may leave parents shared that
// were not, and new mounts beneath old ones. So it notes first what it is about
// to change, and the next run undoes that.

const replacingSuffix = ".replacing"

// replacingRecord is the form of the note.
type replacingRecord struct {
	Version int            `json:"version"`
	Places  []mounts.Place `json:"places"`
}

func (s store) replacingPath(init *nsenter.Process) string {
	return filepath.Join(s.settledDir(), init.Identity()+replacingSuffix)
}

// replace replaces mounts in the given namespaces of the container. What fails
// is undone.
func (s store) replace(ctx context.Context, init *nsenter.Process, spaces []mounts.Space, list []*mounts.Replacement) error {
	err := mounts.Replace(ctx, spaces, list, func(places []mounts.Place) error {
		if _, err := os.Lstat(s.replacingPath(init)); err == nil {
			return errors.New("what an earlier run began with mounts is not undone yet")
		}
		data, err := json.Marshal(replacingRecord{Version: recordVersion, Places: places})
		if err != nil {
			return err
		}
		return writeFile(s.settledDir(), init.Identity()+replacingSuffix, data)
	})
	failed := err != nil
	for _, r := range list {
		failed = failed || r.Err != nil
	}
	if failed {
		_, undoErr := s.undoReplacing(ctx, init, spaces)
		return errors.Join(err, undoErr)
	}
	return errors.Join(err, s.endReplacing(init))
}

// undoReplacing undoes what a run has begun and not finished, and reports
// whether there was anything.
func (s store) undoReplacing(ctx context.Context, init *nsenter.Process, spaces []mounts.Space) (bool, error) {
	data, err := os.ReadFile(s.replacingPath(init))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("note of mounts that are replaced: %w", err)
	}
	var rec replacingRecord
	if err := json.Unmarshal(data, &rec); err != nil || rec.Version != recordVersion {
		return false, errors.Join(fmt.Errorf("note of mounts that are replaced %s: not of this version, or not readable", s.replacingPath(init)), err, s.endReplacing(init))
	}
	undone, err := mounts.Undo(ctx, spaces, rec.Places)
	if err != nil {
		return undone, fmt.Errorf("undo the replacing of mounts that was not finished: %w", err)
	}
	return undone, s.endReplacing(init)
}

func (s store) endReplacing(init *nsenter.Process) error {
	if err := os.Remove(s.replacingPath(init)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("note of mounts that are replaced: %w", err)
	}
	return nil
}
