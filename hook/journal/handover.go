package journal

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/criuimage"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/helper/fdstore"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/stage"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Handover passes data from one stage of a restore to the next: the contents of the
// images, which CRIU closes, and the helper that keeps files open. The CRIU process
// identifies the restore.
type Handover struct {
	// Stage is the last finished stage.
	Stage stage.Name `json:"moment"`
	// Init is the identity of the container's first process, "" before it exists.
	Init    string      `json:"init"`
	Devices []OldDevice `json:"devices"`
	// Taken are device numbers that Reserve could not reserve, because other file systems
	// have them.
	Taken []uint64 `json:"taken,omitempty"`
	// Helper has the placeholders of reserved device numbers open after Reserve, and
	// roots of mounts after Preserve.
	Helper fdstore.Ref `json:"holder"`
	// Lower is the helper that keeps many lower numbers taken between Reserve and
	// Preserve.
	Lower fdstore.Ref `json:"lower"`
	Roots []HeldRoot  `json:"roots"`
	// Preserved are the paths of mounts that have their old device numbers again;
	// NotPreserved are the reasons why others have not, by path.
	Preserved    []string          `json:"preserved"`
	NotPreserved map[string]string `json:"not_preserved"`
	// NoTimerBefore is the time before which, by the images, no timer of the checkpoint
	// expires; zero if that is not known.
	NoTimerBefore time.Time `json:"no_timer_before,omitzero"`
	// Fractions are those of [criuimage.Watched].
	Fractions map[int]time.Duration `json:"fractions,omitempty"`
	// Awake are the identifiers of the systemds whose timers Preserve has corrected, so
	// that they need no call after the resume.
	Awake []string `json:"awake,omitempty"`
	// Unmounted are the paths of offset triggers whose map entries were unmounted.
	Unmounted []string `json:"unmounted,omitempty"`
	// Reports are the results of Repair, for a second call at the same stage.
	Reports []report.Mount `json:"reports,omitempty"`
	// Warnings are the warnings of the earlier stages, for the report.
	Warnings []string `json:"warnings,omitempty"`
}

// OldDevice is the device number that a mount had at the checkpoint.
type OldDevice struct {
	Path   string `json:"path"`
	Device uint64 `json:"device"` // st_dev
	// StrictExpire and Ignore are the mount options of these names.
	StrictExpire bool `json:"strictexpire,omitempty"`
	Ignore       bool `json:"ignore,omitempty"`
	// Systemd is whether, by the images, a systemd is its master: the first process
	// reads the pipe and has closed its write end.
	Systemd bool `json:"systemd"`
}

// HeldRoot is the root of a mount that the helper has open.
type HeldRoot struct {
	Namespace uint64 `json:"namespace"` // inode number of the mount namespace
	Mount     int    `json:"mount"`     // mount id
	Index     int    `json:"index"`     // of the helper's file
}

var handovers = &Kind[Handover]{folder: restoresFolder, suffix: ".json", version: 1, label: "handover of the restore"}

// SaveHandover writes the handover of a restore.
func (s Store) SaveHandover(criu *nsenter.Process, h *Handover) error {
	return handovers.Of(s, criu).Save(*h)
}

// LoadHandover reads the handover of a restore; nil if there is none. It is an error if
// the handover has another version or is damaged.
func (s Store) LoadHandover(criu *nsenter.Process) (*Handover, error) {
	h, err := handovers.Of(s, criu).Peek()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // no handover is an ordinary answer
	}
	if err != nil {
		return nil, err
	}
	return &h, nil
}

// StopHelpers ends the helpers, and forgets them.
func (h *Handover) StopHelpers(ctx context.Context) error {
	err := errors.Join(h.Helper.Stop(ctx), h.Lower.Stop(ctx))
	h.Helper, h.Lower = fdstore.Ref{}, fdstore.Ref{}
	return err
}

// OthersKeepLower reports whether another restore keeps lower device numbers taken, or may
// do so: they become free when it has preserved its mounts.
func (s Store) OthersKeepLower(criu *nsenter.Process) bool {
	entries, _ := os.ReadDir(filepath.Join(s.dir, restoresFolder))
	for _, e := range entries {
		pid, start, err := nsenter.ParseIdentity(strings.TrimSuffix(e.Name(), handovers.suffix))
		if err != nil || pid == criu.PID() {
			continue
		}
		p, err := nsenter.OpenIdentity(pid, start)
		if err != nil {
			continue // it has ended
		}
		h, err := s.LoadHandover(p)
		p.Close()
		if err != nil || h != nil && h.Lower.PID != 0 {
			return true
		}
	}
	return false
}

// OldDevices returns the old device numbers from the images, one for each path. If mount
// namespaces differ, the first one counts: CRIU numbers them from that of the container's
// first process on.
func OldDevices(set *criuimage.Set) []OldDevice {
	var found []OldDevice
	seen := map[string]bool{}
	for _, m := range set.Mounts { // ordered by namespace
		if seen[m.MountPoint] {
			continue
		}
		seen[m.MountPoint] = true
		d := OldDevice{Path: m.MountPoint, Device: m.Device}
		if s, ok := set.Superblocks[m.Device]; ok {
			d.Systemd = !s.Catatonic() && s.ProcessGroup == 1 && s.ReadFD >= 0 && s.Mode.Trigger()
		}
		if o, err := autofs.ParseOptions(m.Options); err == nil {
			d.StrictExpire, d.Ignore = o.StrictExpire, o.Ignore
		}
		found = append(found, d)
	}
	return found
}

// MayCallSystemd reports whether Repair may call a systemd, as far as can be foreseen:
// unless Preserve has finished and has left none of its mounts to Repair.
func (h *Handover) MayCallSystemd() bool {
	return h.Stage != stage.Preserve || len(h.Awake) == 0 || len(h.NotPreserved) > 0
}

// SystemdDevices returns the device numbers that a systemd remembers.
func (h *Handover) SystemdDevices() []uint64 {
	var numbers []uint64
	for _, d := range h.Devices {
		if d.Systemd {
			numbers = append(numbers, d.Device)
		}
	}
	return numbers
}

// OldDevice returns the old device of a path, the zero value if the images do not have it.
func (h *Handover) OldDevice(path string) OldDevice {
	for _, d := range h.Devices {
		if d.Path == path {
			return d
		}
	}
	return OldDevice{}
}

// Describe sets DeviceBefore, Preserved and NotPreserved of the mounts. main is the inode
// number of the container's main mount namespace, whose paths the handover has. Another
// namespace may have another mount at the same path, as a container in the container
// does: its mount is described only if it has the same superblock.
func (h *Handover) Describe(list []container.Mount, main uint64) {
	before := make(map[string]uint64, len(h.Devices))
	for i := range h.Devices {
		before[h.Devices[i].Path] = h.Devices[i].Device
	}
	preserved := make(map[string]bool, len(h.Preserved))
	for _, path := range h.Preserved {
		preserved[path] = true
	}
	type superblock struct {
		path   string
		device uint64
	}
	known := map[superblock]bool{}
	for i := range list {
		if m := &list[i]; m.Namespace == main && !m.Outside() {
			known[superblock{m.Path, m.Device}] = true
		}
	}
	for i := range list {
		m := &list[i]
		if !known[superblock{m.Path, m.Device}] {
			continue
		}
		m.DeviceBefore = before[m.Path]
		m.Preserved = preserved[m.Path] && m.Device == m.DeviceBefore
		m.NotPreserved = h.NotPreserved[m.Path]
	}
}
