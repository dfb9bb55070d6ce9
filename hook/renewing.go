package hook

import (
	"context"
	"errors"
	"os"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// A restart of a unit renews its mount in the main mount namespace; we put it
// into those that it does not propagate to. A run that is killed between the two
// leaves a note, so that the next one does that.

var renewingNote = noteKind{"containers", ".renewing", "note of a restart"}

// renewingRecord is the form of a note.
type renewingRecord struct {
	Version int    `json:"version"`
	Path    string `json:"path"`
	Device  uint64 `json:"device"` // st_dev before the restart
}

// beginRenewing leaves the note.
func (s store) beginRenewing(init *nsenter.Process, m *Mount) (*note, error) {
	n := renewingNote.of(s, init, m.ID)
	if n.exists() {
		return nil, errBegun
	}
	return n, n.save(renewingRecord{Version: recordVersion, Path: m.Path, Device: m.Device})
}

// finishRenewing does what killed runs have not come to. It is after
// finishKeeping: what covered a mount is back.
func (s store) finishRenewing(ctx context.Context, sc *scene) error {
	notes, err := renewingNote.all(s, sc.init)
	errs := []error{err}
	for _, n := range notes {
		errs = append(errs, s.finishOneRenewing(ctx, sc, n))
	}
	return errors.Join(errs...)
}

func (s store) finishOneRenewing(ctx context.Context, sc *scene, n *note) error {
	var rec renewingRecord
	if err := n.loadOrRemove(&rec); err != nil {
		return err
	}
	now := autofsAt(sc.main().table, rec.Path)
	if now == nil {
		return nil // its unit may still mount it: the next run looks again
	}
	if fresh := mounts.DeviceOf(now); fresh != rec.Device {
		if err := s.renewElsewhere(ctx, sc, rec.Path, rec.Device, fresh, sc.home(nil).copier(ctx, rec.Path, fresh)); err != nil {
			return err
		}
	}
	return errors.Join(n.remove(), sc.readTables())
}

// renewElsewhere puts copies of the mount that a master has recreated in the place
// of the old one, in the mount namespaces that it has not propagated to.
func (s store) renewElsewhere(ctx context.Context, sc *scene, path string, old, fresh uint64, copied func() (*os.File, error)) error {
	if err := sc.readTables(); err != nil {
		return err
	}
	var others []mounts.Space
	for _, sp := range sc.mountSpaces() {
		if sp.Shows(path, old) && !sp.Shows(path, fresh) {
			others = append(others, sp)
		}
	}
	if len(others) == 0 {
		return nil
	}
	tree, err := copied()
	if err != nil {
		return err
	}
	defer tree.Close()
	r := &mounts.Replacement{Path: path, Old: old, New: tree, Device: fresh}
	return errors.Join(s.replace(ctx, sc.init, others, []*mounts.Replacement{r}), r.Err)
}
