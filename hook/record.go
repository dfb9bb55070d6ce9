package hook

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/helper"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/images"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/dirs"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// recordVersion is the version of the record's form. A record of another
// version was written by another release and is ignored.
const recordVersion = 1

// record is what one moment of a restore leaves for the next: what the images
// say, which are closed by then, and who holds the files that were opened. It
// lies under the run directory, for root only, and is named after the CRIU
// process, so that no other restore can take it for its own.
type record struct {
	Version int `json:"version"`
	// Moment is the last one that is finished.
	Moment Moment `json:"moment"`
	// Init is the identity of the container's first process, "" before it
	// exists.
	Init    string      `json:"init"`
	Devices []oldDevice `json:"devices"`
	// Holder holds the fillers of the wanted device numbers after Reserve, the
	// roots after Preserve.
	Holder helper.Ref `json:"holder"`
	Roots  []heldRoot `json:"roots"`
	// Preserved are the paths whose mounts have their old numbers again;
	// NotPreserved says of others why not.
	Preserved    []string          `json:"preserved"`
	NotPreserved map[string]string `json:"not_preserved"`
	// Unmounted are the paths of offset triggers whose keys are unmounted.
	Unmounted []string      `json:"unmounted,omitempty"`
	Reports   []MountReport `json:"reports,omitempty"`
	// Warnings are what the earlier moments warned of, for the report.
	Warnings []string `json:"warnings,omitempty"`
}

// oldDevice is the device number that a mount had at the checkpoint.
type oldDevice struct {
	Path   string `json:"path"`
	Device uint64 `json:"device"`
	// StrictExpire and Ignore are the mount options of these names.
	StrictExpire bool `json:"strictexpire,omitempty"`
	Ignore       bool `json:"ignore,omitempty"`
	// Systemd is whether the images show the marks of a systemd as its master:
	// the first process reads the pipe and has closed its writing end.
	Systemd bool `json:"systemd"`
}

// heldRoot says which of the holder's files is which mount's root.
type heldRoot struct {
	Namespace uint64 `json:"namespace"`
	Mount     int    `json:"mount"`
	Index     int    `json:"index"`
}

// devicesOf takes the old device numbers from the images. CRIU numbers mount
// namespaces from the container's first process on, so where namespaces differ
// about a path, the lowest number is the one of the main namespace.
func devicesOf(set *images.Set) []oldDevice {
	if set == nil {
		return nil
	}
	var found []oldDevice
	seen := map[string]bool{}
	for _, m := range set.Mounts { // ordered by namespace
		if seen[m.MountPoint] {
			continue
		}
		seen[m.MountPoint] = true
		d := oldDevice{Path: m.MountPoint, Device: m.Device}
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

// wanted are the device numbers that a systemd remembers.
func (r *record) wanted() []uint64 {
	var numbers []uint64
	for _, d := range r.Devices {
		if d.Systemd {
			numbers = append(numbers, d.Device)
		}
	}
	return numbers
}

// before looks a path up; all zero if the images do not have it.
func (r *record) before(path string) oldDevice {
	for _, d := range r.Devices {
		if d.Path == path {
			return d
		}
	}
	return oldDevice{}
}

// describe adds to each mount what is known from the earlier moments. The images are
// looked up by the paths of the container's main mount namespace, whose id is given.
// Another namespace may have another mount at the same path, as a container in the
// container has: what it shows is known only if it is the very superblock.
func (r *record) describe(list []Mount, main uint64) {
	before := make(map[string]uint64, len(r.Devices))
	for i := range r.Devices {
		before[r.Devices[i].Path] = r.Devices[i].Device
	}
	preserved := make(map[string]bool, len(r.Preserved))
	for _, path := range r.Preserved {
		preserved[path] = true
	}
	type superblock struct {
		path   string
		device uint64
	}
	known := map[superblock]bool{}
	for i := range list {
		if m := &list[i]; m.Namespace == main && !m.outside() {
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
		m.NotPreserved = r.NotPreserved[m.Path]
	}
}

// store is the directory of records, locks and reports.
type store struct{ dir string }

func (s store) recordName(criu *nsenter.Process) string { return criu.Identity() + reportSuffix }

// save writes a restore's record.
func (s store) save(criu *nsenter.Process, r *record) error {
	r.Version = recordVersion
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("record of the restore: %w", err)
	}
	return writeFile(filepath.Join(s.dir, "restores"), s.recordName(criu), data)
}

// load reads a restore's record; nil if there is none.
func (s store) load(criu *nsenter.Process) (*record, error) {
	data, err := os.ReadFile(filepath.Join(s.dir, "restores", s.recordName(criu)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // no record is an ordinary answer
	}
	if err != nil {
		return nil, fmt.Errorf("record of the restore: %w", err)
	}
	return parseRecord(data)
}

func parseRecord(data []byte) (*record, error) {
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("record of the restore: %w", err)
	}
	if r.Version != recordVersion {
		return nil, fmt.Errorf("record of the restore: version %d, want %d", r.Version, recordVersion)
	}
	return &r, nil
}

// writingTime is longer than the program runs.
const writingTime = time.Minute

// reportTime is how long a report is kept: they lie in memory.
const reportTime = 7 * 24 * time.Hour

// sweep removes the records of restores whose CRIU has ended, those of
// containers that have, and what killed runs have not written to the end.
func (s store) sweep() {
	for _, name := range []string{"restores", "covers", "containers", "locks", "reports"} {
		dir := filepath.Join(s.dir, name)
		entries, err := dirs.Entries(dir)
		if err != nil {
			continue // nothing was ever recorded
		}
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), temporarySuffix) {
				if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > writingTime {
					_ = os.Remove(filepath.Join(dir, e.Name()))
				}
				continue
			}
			if name == "reports" { // named as the engine pleases
				if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > reportTime {
					_ = os.Remove(filepath.Join(dir, e.Name()))
				}
				continue
			}
			identity, _, _ := strings.Cut(e.Name(), ".")
			pid, start, err := parseIdentity(identity)
			if err != nil {
				continue // not a record's name
			}
			p, err := nsenter.OpenIdentity(pid, start)
			if errors.Is(err, fs.ErrNotExist) {
				_ = os.Remove(filepath.Join(dir, e.Name()))
			} else if err == nil {
				p.Close()
			}
		}
	}
}
