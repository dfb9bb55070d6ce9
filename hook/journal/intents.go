package journal

import (
	"path/filepath"
	"strconv"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/helper/fdstore"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// The kinds of intents. The names of their files are a contract with the release
// before an upgrade: a new form gets a new version.
var (
	// Replacements are of mounts that are being replaced.
	Replacements = &Kind[Replacement]{containersFolder, ".replacing", 1, "intent to replace mounts", nil}
	// UnitRestarts are of units that systemd was asked to restart, by mount id.
	UnitRestarts = &Kind[UnitRestart]{containersFolder, ".renewing", 1, "intent to restart a unit", nil}
	// CoversSaved are of covers that are kept while a unit restarts, by mount id.
	CoversSaved = &Kind[SavedCovers]{coversFolder, ".json", 1, "record of covering mounts", nil}
	// WaitersParked is of a parking mount for waiters.
	WaitersParked = &Kind[ParkedWaiters]{containersFolder, ".gate", 1, "intent to park waiters", parseNumber}
	// TriggersParked are of parking mounts for triggers, by daemon and device number.
	TriggersParked = &Kind[ParkedTriggers]{containersFolder, ".parking", 1, "record of parking mounts", nil}
)

// Replacement lists the places where mounts are being replaced.
type Replacement struct {
	Places []mounts.Place `json:"places"`
}

// UnitRestart says which mount the unit had before its restart.
type UnitRestart struct {
	Path   string `json:"path"`
	Device uint64 `json:"device"` // st_dev
}

// SavedCovers says where covers of a mount are kept.
type SavedCovers struct {
	Path   string `json:"path"`
	Device uint64 `json:"device"` // st_dev of the mount
	// Holder has the mount namespace open in which the covers are.
	Holder fdstore.Ref `json:"holder"`
}

// ParkedWaiters is the parking mount into which waiters are brought.
type ParkedWaiters struct {
	Device uint64 `json:"device"` // st_dev
}

// parseNumber reads the form before version 1: the number alone.
func parseNumber(data []byte) (ParkedWaiters, error) {
	device, err := strconv.ParseUint(string(data), 10, 64)
	return ParkedWaiters{Device: device}, err
}

// ParkedTriggers are the parking mounts of one daemon.
type ParkedTriggers struct {
	container.Parking
	// Namespace is the daemon's mount namespace, where the triggers are.
	Namespace uint64 `json:"namespace"`
	// Helper has three files for each mount: first the roots of all parking
	// mounts, then their pipes, then copies of the stale triggers.
	Helper fdstore.Ref `json:"helper"`
}

// HasEntries reports whether earlier runs have left anything about the container. In
// doubt they have.
func (s Store) HasEntries(init *nsenter.Process) bool {
	for _, folder := range []string{containersFolder, coversFolder} {
		names, err := namesOf(filepath.Join(s.dir, folder), init)
		if err != nil || len(names) > 0 {
			return true
		}
	}
	return false
}

// Pending reports whether a file of the journal, by folder and name, is needed to
// recover an interrupted operation, or is a lock. All other files can be removed at
// any time.
func Pending(folder, name string) bool {
	switch folder {
	case coversFolder, locksFolder:
		return true
	case containersFolder: // the ledger's name is "PID-START.json", that of an intent has more
		identity, ok := strings.CutSuffix(name, ledgers.suffix)
		return !ok || strings.Contains(identity, ".")
	}
	return false
}
