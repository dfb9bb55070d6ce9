//go:build linux

package autofs

import "strconv"

// Type is the kind of an autofs mount. The numbers are those of CRIU's
// autofs_entry.mode (AUTOFS_MODE_*, criu/autofs.c), not the kernel's bit mask
// AUTOFS_TYPE_*.
type Type int

const (
	// Direct is a trigger on the mount's root, named in a map by its full path.
	Direct Type = 0
	// Indirect is a directory whose entries are the triggers.
	Indirect Type = 1
	// Offset is a direct trigger inside another automounted filesystem.
	Offset Type = 2
)

// String returns the mount option of the type, as fs/autofs/inode.c prints it.
func (t Type) String() string {
	switch t {
	case Direct:
		return "direct"
	case Indirect:
		return "indirect"
	case Offset:
		return "offset"
	}
	return "type(" + strconv.Itoa(int(t)) + ")"
}

// Valid reports whether t is one of the three types.
func (t Type) Valid() bool { return t >= Direct && t <= Offset }

// Trigger reports whether the mount's root itself is the trigger: then a path
// walk onto the root waits for the master (AUTOFS_TYPE_TRIGGER of the kernel).
func (t Type) Trigger() bool { return t == Direct || t == Offset }
