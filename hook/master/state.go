package master

import (
	"bytes"
	"fmt"
	"strconv"
)

// DeviceChange is a device number in systemd's state that is to be corrected.
type DeviceChange struct {
	Unit     string
	Old, New uint64 // st_dev
}

// StateEdit is what came of correcting systemd's state.
type StateEdit struct {
	// Addition is to be written after the end of the state, in one call: for
	// each corrected unit one more section, with its device number only.
	Addition []byte
	// Changed are the units that have their new number with that, or had it.
	Changed []string
	// Left says of the other units why their number was left as it is.
	Left map[string]string
	// Waiting are the units with requests that systemd took and has not
	// answered (token=).
	Waiting []string
}

// EditState corrects the device numbers of automount units in the text with
// which systemd hands its state to itself when it re-executes itself
// (src/core/manager-serialize.c, src/core/automount.c): sections that begin
// with the name of a unit and end with an empty line, of lines "name=value".
// A number is only replaced if it is the expected one.
//
// Nothing in the text changes. systemd reads the file to its end and takes a
// value that comes later instead of an earlier one, also from a second section
// of the same unit (manager_deserialize_units, unit_deserialize_state: 240 to
// 262), so what is needed is added behind.
func EditState(text []byte, changes []DeviceChange) (*StateEdit, error) {
	numbers := make(map[string]string, len(changes)) // what systemd will take
	waiting := map[string]bool{}
	wanted := make(map[string]DeviceChange, len(changes))
	for _, c := range changes {
		wanted[c.Unit] = c
	}
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
		if _, ours := wanted[unit]; !ours || !isField || units == 0 {
			continue
		}
		switch string(name) {
		case "dev-id":
			numbers[unit] = string(value)
		case "token":
			waiting[unit] = true
		}
	}
	if units == 0 {
		return nil, fmt.Errorf("systemd's state: no section of a unit in %d bytes", len(text))
	}
	if !begins || text[len(text)-1] != '\n' {
		return nil, fmt.Errorf("systemd's state: the last section is cut off after %d bytes", len(text))
	}
	edit := &StateEdit{Left: map[string]string{}}
	var sections []string
	for _, c := range changes {
		if wanted[c.Unit] != c {
			continue // named twice: the last one is meant
		}
		if waiting[c.Unit] {
			edit.Waiting = append(edit.Waiting, c.Unit)
		}
		section, reason := correction(numbers, c)
		if reason != "" {
			edit.Left[c.Unit] = reason
			continue
		}
		edit.Changed = append(edit.Changed, c.Unit)
		if section != "" {
			sections = append(sections, section)
		}
	}
	edit.Addition = paged(len(text), sections)
	return edit, nil
}

// correction is the section that corrects the number of a unit, "" if it is
// right already, or the reason why it must stay.
func correction(numbers map[string]string, c DeviceChange) (section, reason string) {
	number, known := numbers[c.Unit]
	if !known {
		return "", "systemd's state does not mention its device number"
	}
	have, err := strconv.ParseUint(number, 10, 64)
	switch {
	case err != nil:
		return "", fmt.Sprintf("its device number in systemd's state is %.40q, not a number", number)
	case have == c.New:
		return "", ""
	case have != c.Old:
		return "", fmt.Sprintf("systemd remembers device %d, not %d as the checkpoint images say", have, c.Old)
	}
	section = fmt.Sprintf("%s\ndev-id=%d\n\n", c.Unit, c.New)
	if len(section) > statePage {
		return "", "the name of the unit is too long"
	}
	return section, ""
}

// statePage is the smallest piece of a file that the kernel writes whole.
const statePage = 4096

// paged joins sections that are to be written at the given place of a memory
// file. When this program is killed, the kernel may leave a write between two
// pages (mm/filemap.c, generic_perform_write: fatal_signal_pending), nowhere
// else. So no section goes across a page, and if all together fit into one, they
// lie in one: then either all are written or none. systemd strips the blanks in
// between; alone, where a write was left, they are a unit without a name, which
// it skips.
func paged(offset int, sections []string) []byte {
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
			out = append(out, bytes.Repeat([]byte{' '}, room)...)
		}
		out = append(out, s...)
	}
	return out
}
