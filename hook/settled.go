package hook

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// settled is what a run has made sure of: that this master knows this mount by
// this number. It is kept until the container ends. Later runs cannot see that
// by dates, since a mount that was cured is younger than its unit, nor by the
// checkpoint images, which have the number from before.
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

func (s store) settledDir() string { return filepath.Join(s.dir, "containers") }

// hasNotes reports whether earlier runs have left anything about the container.
func (s store) hasNotes(init *nsenter.Process) bool {
	for _, dir := range []string{s.settledDir(), s.keepingDir()} {
		names, err := filepath.Glob(filepath.Join(dir, init.Identity()+".*"))
		if err != nil || len(names) > 0 {
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
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("record of repaired mounts: %w", err)
	}
	return writeFile(s.settledDir(), init.Identity()+reportSuffix, data)
}

// markSettled marks the mounts that an earlier run has cured and that are still
// as they were then.
func (s store) markSettled(init *nsenter.Process, list []Mount) error {
	data, err := os.ReadFile(filepath.Join(s.settledDir(), init.Identity()+reportSuffix))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("record of repaired mounts: %w", err)
	}
	var r settledRecord
	if err := json.Unmarshal(data, &r); err != nil || r.Version != recordVersion {
		return errors.Join(errors.New("record of repaired mounts: not of this version, or not readable"), err)
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
