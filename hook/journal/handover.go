package journal

import (
	"errors"
	"io/fs"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/criuimage"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/helper/fdstore"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/stage"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Handover is what one stage of a restore leaves for the next: what the images
// say, which are closed by then, and which helper has the files that were opened. It
// is named after the CRIU process, so that no other restore can take it for its own.
type Handover struct {
	// Stage is the last stage that is finished.
	Stage stage.Name `json:"moment"`
	// Init is the identity of the container's first process, "" before it
	// exists.
	Init    string      `json:"init"`
	Devices []OldDevice `json:"devices"`
	// Holder holds the placeholders of the wanted device numbers after Reserve, the
	// roots after Preserve.
	Holder fdstore.Ref `json:"holder"`
	Roots  []HeldRoot  `json:"roots"`
	// Preserved are the paths whose mounts have their old numbers again;
	// NotPreserved says of others why not.
	Preserved    []string          `json:"preserved"`
	NotPreserved map[string]string `json:"not_preserved"`
	// Unmounted are the paths of offset triggers whose keys are unmounted.
	Unmounted []string       `json:"unmounted,omitempty"`
	Reports   []report.Mount `json:"reports,omitempty"`
	// Warnings are what the earlier stages warned of, for the report.
	Warnings []string `json:"warnings,omitempty"`
}

// OldDevice is the device number that a mount had at the checkpoint.
type OldDevice struct {
	Path   string `json:"path"`
	Device uint64 `json:"device"` // st_dev
	// StrictExpire and Ignore are the mount options of these names.
	StrictExpire bool `json:"strictexpire,omitempty"`
	Ignore       bool `json:"ignore,omitempty"`
	// Systemd is whether the images show the marks of a systemd as its master:
	// the first process reads the pipe and has closed its writing end.
	Systemd bool `json:"systemd"`
}

// HeldRoot says which of the holder's files is which mount's root.
type HeldRoot struct {
	Namespace uint64 `json:"namespace"`
	Mount     int    `json:"mount"`
	Index     int    `json:"index"`
}

var handovers = &Kind[Handover]{restoresFolder, ".json", 1, "record of the restore", nil}

// SaveHandover writes the handover of a restore.
func (s Store) SaveHandover(criu *nsenter.Process, h *Handover) error {
	return handovers.Of(s, criu).Save(*h)
}

// LoadHandover reads the handover of a restore; nil if there is none.
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

// OldDevices takes the old device numbers from the images. CRIU numbers mount
// namespaces from the container's first process on, so where namespaces differ
// about a path, the lowest number is the one of the main namespace.
func OldDevices(set *criuimage.Set) []OldDevice {
	if set == nil {
		return nil
	}
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
		if o, err := autofs.ParseOptions(m.Options); err == nil { // else it has none of them
			d.StrictExpire, d.Ignore = o.StrictExpire, o.Ignore
		}
		found = append(found, d)
	}
	return found
}

// Wanted are the device numbers that a systemd remembers.
func (h *Handover) Wanted() []uint64 {
	var numbers []uint64
	for _, d := range h.Devices {
		if d.Systemd {
			numbers = append(numbers, d.Device)
		}
	}
	return numbers
}

// Before looks a path up; all zero if the images do not have it.
func (h *Handover) Before(path string) OldDevice {
	for _, d := range h.Devices {
		if d.Path == path {
			return d
		}
	}
	return OldDevice{}
}

// Describe adds to each mount what is known from the earlier stages. The images are
// looked up by the paths of the container's main mount namespace, whose id is given.
// Another namespace may have another mount at the same path, as a container in the
// container has: what it shows is known only if it is the very superblock.
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
