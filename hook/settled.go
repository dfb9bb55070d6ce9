package hook

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// settled is what a run has made sure of: that this master knows this mount by
// this number. It is kept until the container ends. Later runs cannot see that
// by the checkpoint images, which have the number from before.
type settled struct {
	Namespace uint64 `json:"namespace"`
	Path      string `json:"path"`
	Device    uint64 `json:"device"`
	Mount     int    `json:"mount"`
	Master    string `json:"master"` // nsenter's Process.Identity
}

// settledRecord is the form of the file.
type settledRecord struct {
	Version int       `json:"version"`
	Mounts  []settled `json:"mounts"`
}

var settledNote = noteKind{"containers", ".json", "record of repaired mounts"}

// hasNotes reports whether earlier runs have left anything about the container.
func (s store) hasNotes(init *nsenter.Process) bool {
	for _, folder := range []string{settledNote.folder, keepingNote.folder} {
		notes, err := (&noteKind{folder: folder}).all(s, init)
		if err != nil || len(notes) > 0 {
			return true
		}
	}
	return false
}

// settle records the mounts that are cured, and those that were before.
func (s store) settle(init *nsenter.Process, snapshot *Snapshot, plan []Decision) error {
	r := settledRecord{Version: recordVersion}
	for _, d := range plan {
		m := &snapshot.Mounts[d.Mount]
		if d.Cure == Unrepaired || d.Cure == Healthy && !m.knownHealthy() {
			continue
		}
		r.Mounts = append(r.Mounts, m.settled())
	}
	if len(r.Mounts) == 0 {
		return nil
	}
	return settledNote.of(s, init).save(r)
}

// alsoSettled adds mounts to the record as soon as they are cured: this run, or the
// record of the restore, may get lost before the end.
func (s store) alsoSettled(init *nsenter.Process, cured []settled) error {
	if len(cured) == 0 {
		return nil
	}
	n := settledNote.of(s, init)
	var r settledRecord
	if err := n.load(&r); err != nil {
		r = settledRecord{} // none yet, or of another release
	}
	r.Version = recordVersion
	for _, m := range cured {
		if !slices.Contains(r.Mounts, m) {
			r.Mounts = append(r.Mounts, m)
		}
	}
	return n.save(r)
}

// markSettled marks the mounts that an earlier run has cured and that are still
// as they were then.
func (s store) markSettled(init *nsenter.Process, list []Mount) error {
	var r settledRecord
	err := settledNote.of(s, init).load(&r)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	known := make(map[settled]bool, len(r.Mounts))
	for _, m := range r.Mounts {
		known[m] = true
	}
	for i := range list {
		list[i].Settled = known[list[i].settled()]
	}
	return nil
}

func (m *Mount) settled() settled {
	return settled{Namespace: m.Namespace, Path: m.Path, Device: m.Device, Mount: m.ID, Master: m.Master.identity()}
}

// identity names the master's process for as long as the machine runs.
func (m *Master) identity() string { return fmt.Sprintf("%d-%d", m.PID, m.StartTime) }
