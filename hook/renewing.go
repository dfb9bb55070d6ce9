package hook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// A restart of a unit renews its mount in the main mount namespace; we put it
// into those that it does not propagate to. A run that is killed between the two
// leaves a note, so that the next one does that.

const renewingSuffix = ".renewing"

// renewing is the path of a note.
type renewing string

// renewingRecord is the form of a note.
type renewingRecord struct {
	Version int    `json:"version"`
	Path    string `json:"path"`
	Device  uint64 `json:"device"` // st_dev before the restart
}

// beginRenewing leaves the note.
func (s store) beginRenewing(init *nsenter.Process, m *Mount) (renewing, error) {
	data, err := json.Marshal(renewingRecord{Version: recordVersion, Path: m.Path, Device: m.Device})
	if err != nil {
		return "", fmt.Errorf("note of a restart: %w", err)
	}
	name := fmt.Sprintf("%s.%d%s", init.Identity(), m.ID, renewingSuffix)
	return renewing(filepath.Join(s.settledDir(), name)), writeFile(s.settledDir(), name, data)
}

// end takes the note away.
func (r renewing) end() error {
	if err := os.Remove(string(r)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("note of a restart: %w", err)
	}
	return nil
}

// finishRenewing does what killed runs have not come to. It is after
// finishKeeping: what covered a mount is back.
func (s store) finishRenewing(ctx context.Context, sc *scene) error {
	entries, err := os.ReadDir(s.settledDir())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var errs []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), sc.init.Identity()+".") && strings.HasSuffix(e.Name(), renewingSuffix) {
			errs = append(errs, s.finishOneRenewing(ctx, sc, renewing(filepath.Join(s.settledDir(), e.Name()))))
		}
	}
	return errors.Join(append(errs, err)...)
}

func (s store) finishOneRenewing(ctx context.Context, sc *scene, note renewing) error {
	data, err := os.ReadFile(string(note))
	if err != nil {
		return fmt.Errorf("note of a restart: %w", err)
	}
	var rec renewingRecord
	if err := json.Unmarshal(data, &rec); err != nil || rec.Version != recordVersion {
		return errors.Join(fmt.Errorf("note of a restart %s: not of this version, or not readable", note), err, note.end())
	}
	now := autofsAt(sc.main().table, rec.Path)
	if now == nil {
		return nil // its unit may still mount it: the next run looks again
	}
	if fresh := mounts.DeviceOf(now); fresh != rec.Device {
		if err := s.renewElsewhere(ctx, sc, rec.Path, rec.Device, fresh); err != nil {
			return err
		}
	}
	return errors.Join(note.end(), sc.readTables())
}

// renewElsewhere puts the mount that systemd has made anew into the mount
// namespaces that it does not propagate to, in the place of the old one.
func (s store) renewElsewhere(ctx context.Context, sc *scene, path string, old, fresh uint64) error {
	if err := sc.readTables(); err != nil {
		return err
	}
	var others []mounts.Space
	for _, sp := range sc.mountSpaces() {
		if sp.Shows(path, old) {
			others = append(others, sp)
		}
	}
	if len(others) == 0 {
		return nil
	}
	copied, err := mounts.CopyOfAutofs(ctx, sc.main().process, path, fresh)
	if err != nil {
		return err
	}
	defer copied.Close()
	r := &mounts.Replacement{Path: path, Old: old, New: copied, Device: fresh}
	return errors.Join(s.replace(ctx, sc.init, others, []*mounts.Replacement{r}), r.Err)
}
