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
	// Text is the corrected state; it differs from the original in the numbers
	// of the units in Changed and in nothing else.
	Text    []byte
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
func EditState(text []byte, changes []DeviceChange) (*StateEdit, error) {
	wanted := make(map[string]DeviceChange, len(changes))
	edit := &StateEdit{Left: map[string]string{}}
	for _, c := range changes {
		wanted[c.Unit] = c
		edit.Left[c.Unit] = "systemd's state does not mention its device number"
	}
	var out bytes.Buffer
	unit, begins, units := "", false, 0 // the first section is systemd's own and has no name
	for rest := text; len(rest) > 0; {
		line, after, ended := bytes.Cut(rest, []byte{'\n'})
		rest = after
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
		change, ours := wanted[unit]
		if ours && isField && string(name) == "dev-id" {
			line = edit.number(line, value, change)
		}
		if ours && isField && string(name) == "token" {
			edit.Waiting = append(edit.Waiting, unit)
		}
		out.Write(line)
		if ended {
			out.WriteByte('\n')
		}
	}
	if units == 0 {
		return nil, fmt.Errorf("systemd's state: no section of a unit in %d bytes", len(text))
	}
	if !begins {
		return nil, fmt.Errorf("systemd's state: the last section is cut off after %d bytes", len(text))
	}
	edit.Text = out.Bytes()
	return edit, nil
}

// number corrects one line dev-id=.
func (e *StateEdit) number(line, value []byte, c DeviceChange) []byte {
	have, err := strconv.ParseUint(string(value), 10, 64)
	switch {
	case err != nil:
		e.Left[c.Unit] = fmt.Sprintf("its device number in systemd's state is %.40q, not a number", value)
	case have == c.New:
		delete(e.Left, c.Unit)
		e.Changed = append(e.Changed, c.Unit)
	case have != c.Old:
		e.Left[c.Unit] = fmt.Sprintf("systemd remembers device %d, not %d as the checkpoint images say", have, c.Old)
	default:
		delete(e.Left, c.Unit)
		e.Changed = append(e.Changed, c.Unit)
		return strconv.AppendUint([]byte("dev-id="), c.New, 10)
	}
	return line
}
