package systemd

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// ServedMount is an autofs mount of a systemd, as the kernel shows it.
type ServedMount struct {
	Path string
	// Pipe is the inode number of the pipe that systemd reads, Device its st_dev.
	Pipe, Device uint64
}

// UnitState is the state of an active automount unit in systemd's state, and its
// correction.
type UnitState struct {
	Unit string
	// Pipe is the inode number of its pipe, OldDevice the device number in systemd's state,
	// Device that of the mount.
	Pipe, OldDevice, Device uint64
	// Waiting is whether systemd took requests that it has not answered (token=).
	Waiting bool
	// Problem says why the number is not corrected, "" if it is correct or corrected.
	Problem string
}

// Corrected reports whether the state gets another device number.
func (u *UnitState) Corrected() bool { return u.Problem == "" && u.OldDevice != u.Device }

// StateEdit is the correction of systemd's state.
type StateEdit struct {
	// Addition must be appended to the state with one write: for each corrected unit
	// another section, with its device number only.
	Addition []byte
	// Units are all automount units with a pipe, sorted by name.
	Units []UnitState
}

// editState corrects the device numbers of automount units in the text that
// systemd writes before it re-executes itself and reads afterwards
// (src/core/manager-serialize.c, src/core/automount.c): sections that begin
// with the name of a unit and end with an empty line, of lines "name=value".
// A unit and its mount belong together if they have the same pipe; pipeOf
// returns the pipe of a descriptor of systemd.
//
// The text itself does not change. systemd reads the file to its end, and a later
// value replaces an earlier one, also from a second section of the same unit
// (manager_deserialize_units, unit_deserialize_state: 235 to 262), so corrections are
// appended.
func editState(text []byte, version int, served []ServedMount, pipeOf func(fd int) (uint64, error)) (*StateEdit, error) {
	units, err := automountSections(text)
	if err != nil {
		return nil, err
	}
	byPipe := map[uint64][]ServedMount{}
	for _, mount := range served {
		byPipe[mount.Pipe] = append(byPipe[mount.Pipe], mount)
	}
	edit := &StateEdit{}
	var sections []string
	for _, name := range slices.Sorted(maps.Keys(units)) {
		u := units[name].judge(name, byPipe, pipeOf)
		if u.Corrected() {
			section := fmt.Sprintf("%s\ndev-id=%d\n\n", name, u.Device)
			if len(section) <= statePage {
				sections = append(sections, section)
			} else {
				u.Problem = "the name of the unit is too long"
			}
		}
		edit.Units = append(edit.Units, u)
	}
	edit.Addition = paged(len(text), version, sections)
	return edit, nil
}

// automountSection holds the values of a unit that systemd will use.
type automountSection struct {
	device, pipe string
	waiting      bool
}

// automountSections reads the sections of the automount units with a pipe.
func automountSections(text []byte) (map[string]*automountSection, error) {
	found := map[string]*automountSection{}
	unit, begins, units := "", false, 0 // the first section is the manager's and has no name
	for rest := text; len(rest) > 0; {
		var line []byte
		line, rest, _ = bytes.Cut(rest, []byte{'\n'})
		name, value, isField := bytes.Cut(line, []byte{'='})
		switch {
		case len(line) == 0:
			begins = true
		case begins:
			if isField {
				return nil, fmt.Errorf("systemd's state: a section begins with %.40q, which is not the name of a unit", line)
			}
			unit, begins = string(line), false
			units++
		}
		if !isField || !strings.HasSuffix(unit, ".automount") {
			continue
		}
		u := found[unit]
		if u == nil {
			u = &automountSection{}
			found[unit] = u
		}
		switch string(name) {
		case "dev-id":
			u.device = string(value)
		case "pipe-fd":
			u.pipe = string(value)
		case "token":
			u.waiting = true
		}
	}
	if units == 0 {
		return nil, fmt.Errorf("systemd's state: no section of a unit in %d bytes", len(text))
	}
	if !begins || text[len(text)-1] != '\n' {
		return nil, fmt.Errorf("systemd's state: the last section is cut off after %d bytes", len(text))
	}
	maps.DeleteFunc(found, func(_ string, u *automountSection) bool { return u.pipe == "" }) // not active
	return found, nil
}

// judge compares the device number in a unit's section with that of its mount.
func (s *automountSection) judge(unit string, byPipe map[uint64][]ServedMount, pipeOf func(fd int) (uint64, error)) UnitState {
	u := UnitState{Unit: unit, Waiting: s.waiting}
	problem := func(format string, values ...any) UnitState {
		u.Problem = fmt.Sprintf(format, values...)
		return u
	}
	fd, err := strconv.Atoi(s.pipe)
	if err == nil {
		u.Pipe, err = pipeOf(fd)
	}
	if err != nil {
		return problem("its pipe in systemd's state, descriptor %.40q: %s", s.pipe, err)
	}
	if u.OldDevice, err = strconv.ParseUint(s.device, 10, 64); err != nil {
		return problem("its device number in systemd's state is %.40q, not a number", s.device)
	}
	var ambiguous bool
	if u.Device, ambiguous = deviceOf(unit, byPipe[u.Pipe]); ambiguous {
		return problem("autofs mounts with different device numbers have its pipe")
	}
	if u.Device == 0 {
		return problem("no autofs mount has its pipe")
	}
	return u
}

// deviceOf returns the device number of the mounts with the unit's pipe, 0 if there are
// none. If they have several, only those at the path that the unit is named after count.
func deviceOf(unit string, mounts []ServedMount) (device uint64, ambiguous bool) {
	for i := range mounts {
		ambiguous = ambiguous || device != 0 && device != mounts[i].Device
		device = mounts[i].Device
	}
	if !ambiguous {
		return device, false
	}
	named := slices.DeleteFunc(slices.Clone(mounts), func(s ServedMount) bool { return UnitNameFromPath(s.Path, "automount") != unit })
	if len(named) == 0 || len(named) == len(mounts) {
		return 0, true
	}
	return deviceOf(unit, named)
}

// statePage is the unit in which the kernel writes a file, in bytes.
const statePage = 4096

// paged joins sections for a write at the given offset of a memfd. If this program is
// killed, the kernel may end a write between two pages (mm/filemap.c,
// generic_perform_write: fatal_signal_pending), nowhere else. So no section crosses a
// page boundary, and if all sections fit into one page, they are in one: then the write
// is atomic.
func paged(offset, version int, sections []string) []byte {
	total := 0
	for _, s := range sections {
		total += len(s)
	}
	var out []byte
	for i, s := range sections {
		need := len(s)
		if i == 0 && total <= statePage {
			need = total
		}
		if room := statePage - (offset+len(out))%statePage; need > room {
			out = append(out, padding(room, version)...)
		}
		out = append(out, s...)
	}
	return out
}

// firstLongLines is the first version of systemd that reads lines of any length. Older
// ones read the name of a unit into a buffer (UNIT_NAME_MAX+2).
const firstLongLines = 240

// padding is text that systemd skips. It strips blanks before the name of a unit; where a
// write ended early they are a unit without a name, which it skips. A version without
// long lines gets several such units (unit_deserialize_skip).
func padding(size, version int) []byte {
	const longest = 254 // and a line feed; with the longest name only one blank fits
	var out []byte
	for version < firstLongLines && size-len(out) > 1 {
		piece := min(size-len(out), longest+2)
		if size-len(out)-piece == 1 {
			piece--
		}
		out = append(out, bytes.Repeat([]byte{' '}, piece-2)...)
		out = append(out, "\n\n"...)
	}
	return append(out, bytes.Repeat([]byte{' '}, size-len(out))...)
}
