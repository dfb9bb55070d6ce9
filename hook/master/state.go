package master

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Served is an autofs mount of a systemd, as the kernel shows it.
type Served struct {
	Path string
	// Pipe is the inode number of the pipe that systemd reads, Device its st_dev.
	Pipe, Device uint64
}

// UnitState is what systemd's state says about an automount unit that is active,
// and what comes of it.
type UnitState struct {
	Unit string
	// Pipe is the inode number of its pipe, Was the device number that systemd
	// remembers, Device the one that the kernel shows.
	Pipe, Was, Device uint64
	// Waiting is whether systemd took requests that it has not answered (token=).
	Waiting bool
	// Problem says why the number stays as it is, "" if it is right or corrected.
	Problem string
}

// Corrected reports whether systemd takes another number than it remembered.
func (u *UnitState) Corrected() bool { return u.Problem == "" && u.Was != u.Device }

// StateEdit is how systemd's state is to be corrected.
type StateEdit struct {
	// Addition is to be written after the end of the state, in one call: for
	// each corrected unit one more section, with its device number only.
	Addition []byte
	// Units are all automount units that have a pipe, by name.
	Units []UnitState
}

// EditState corrects the device numbers of automount units in the text with
// which systemd hands its state to itself when it re-executes itself
// (src/core/manager-serialize.c, src/core/automount.c): sections that begin
// with the name of a unit and end with an empty line, of lines "name=value".
// A unit and its mount belong together if they have the same pipe; pipeOf
// returns the pipe behind a descriptor of systemd's.
//
// Nothing in the text changes. systemd reads the file to its end and takes a
// value that comes later instead of an earlier one, also from a second section
// of the same unit (manager_deserialize_units, unit_deserialize_state: 235 to
// 262), so what is needed is added behind.
func EditState(text []byte, version int, served []Served, pipeOf func(fd int) (uint64, error)) (*StateEdit, error) {
	units, err := automountSections(text)
	if err != nil {
		return nil, err
	}
	byPipe := map[uint64][]Served{}
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

// automountSection are the values of a unit that systemd will take.
type automountSection struct {
	device, pipe string
	waiting      bool
}

// automountSections reads the sections of the automount units with a pipe.
func automountSections(text []byte) (map[string]*automountSection, error) {
	found := map[string]*automountSection{}
	unit, begins, units := "", false, 0 // the first section is systemd's own and has no name
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

// judge compares what systemd remembers of a unit with its mount.
func (s *automountSection) judge(unit string, byPipe map[uint64][]Served, pipeOf func(fd int) (uint64, error)) UnitState {
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
	if u.Was, err = strconv.ParseUint(s.device, 10, 64); err != nil {
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

// deviceOf is the device number of the mounts that have the unit's pipe, 0 if
// there are none. Where they have several, those at the path count that the unit
// is named after.
func deviceOf(unit string, mounts []Served) (device uint64, ambiguous bool) {
	for i := range mounts {
		ambiguous = ambiguous || device != 0 && device != mounts[i].Device
		device = mounts[i].Device
	}
	if !ambiguous {
		return device, false
	}
	named := slices.DeleteFunc(slices.Clone(mounts), func(s Served) bool { return UnitNameFromPath(s.Path, "automount") != unit })
	if len(named) == 0 || len(named) == len(mounts) {
		return 0, true
	}
	return deviceOf(unit, named)
}

// statePage is the smallest piece of a file that the kernel writes whole.
const statePage = 4096

// paged joins sections that are to be written at the given place of a memory
// file. When this program is killed, the kernel may leave a write between two
// pages (mm/filemap.c, generic_perform_write: fatal_signal_pending), nowhere
// else. So no section goes across a page, and if all together fit into one, they
// lie in one: then either all are written or none.
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

// firstLongLines is the version from which on systemd reads lines of any length.
// Older ones read the name of a unit into a buffer (UNIT_NAME_MAX+2).
const firstLongLines = 240

// padding is what systemd skips. It strips the blanks before the name of a unit;
// alone, where a write was left, they are a unit without a name, which it skips.
// One that reads no long lines gets several such units (unit_deserialize_skip).
func padding(size, version int) []byte {
	const longest = 254 // and a line feed; beside the longest name no blank but one has room
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
