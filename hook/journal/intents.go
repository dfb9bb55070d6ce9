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

// The kinds of intents. Releases before and after an upgrade share the names of their
// files; a new form of the content needs a new version.
var (
	// Replacements is the kind of intents to replace mounts.
	Replacements = &Kind[Replacement]{folder: containersFolder, suffix: ".replacing", version: 1, label: "intent to replace mounts"}
	// UnitRestarts is the kind of intents to restart a unit; the key is the mount id.
	UnitRestarts = &Kind[UnitRestart]{folder: containersFolder, suffix: ".renewing", version: 1, label: "intent to restart a unit"}
	// Covers is the kind of entries about saved covers; the key is the mount id.
	Covers = &Kind[SavedCovers]{folder: coversFolder, suffix: ".json", version: 1, label: "entry of saved covers"}
	// WaiterParkings is the kind of intents to park waiters.
	WaiterParkings = &Kind[WaiterParking]{folder: containersFolder, suffix: ".gate", version: 1, label: "intent to park waiters", legacy: parseNumber}
	// TriggerParkings is the kind of entries about parking mounts for triggers; the
	// keys are the daemon's pid and the device number of the first parking mount.
	TriggerParkings = &Kind[TriggerParking]{folder: containersFolder, suffix: ".parking", version: 1, label: "entry of parking mounts"}
)

// Replacement has the places where mounts are being replaced.
type Replacement struct {
	Places []mounts.Place `json:"places"`
}

// UnitRestart is the mount of a unit before its restart.
type UnitRestart struct {
	Path   string `json:"path"`
	Device uint64 `json:"device"` // st_dev
}

// SavedCovers are copies of the covers of a mount.
type SavedCovers struct {
	Path   string `json:"path"`
	Device uint64 `json:"device"` // st_dev of the mount
	// Helper has the mount namespace with the copies open.
	Helper fdstore.Ref `json:"holder"`
}

// WaiterParking is the parking mount for waiters.
type WaiterParking struct {
	Device uint64 `json:"device"` // st_dev
}

// parseNumber reads the form before version 1, which is the number alone.
func parseNumber(data []byte) (WaiterParking, error) {
	device, err := strconv.ParseUint(string(data), 10, 64)
	return WaiterParking{Device: device}, err
}

// TriggerParking has the parking mounts for triggers of one daemon.
type TriggerParking struct {
	container.Parking
	// Namespace is the inode number of the daemon's mount namespace.
	Namespace uint64 `json:"namespace"`
	// Helper has three files open for each mount: first the roots of all parking
	// mounts, then their pipes, then copies of the stale triggers.
	Helper fdstore.Ref `json:"helper"`
}

// HasEntries reports whether there are entries about the container, also if the journal
// cannot be read.
func (s Store) HasEntries(init *nsenter.Process) bool {
	for _, folder := range []string{containersFolder, coversFolder} {
		names, err := namesOf(filepath.Join(s.dir, folder), init)
		if err != nil || len(names) > 0 {
			return true
		}
	}
	return false
}

// Pending reports whether a file of the journal, given by folder and name, is a lock or
// needed to recover an interrupted operation. All other files can be removed at any time.
func Pending(folder, name string) bool {
	switch folder {
	case coversFolder, locksFolder:
		return true
	case containersFolder: // intents, and the ledger with the name "PID-START.json"
		identity, ok := strings.CutSuffix(name, ledgers.suffix)
		return !ok || strings.Contains(identity, ".")
	}
	return false
}
