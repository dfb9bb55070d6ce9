package sys

import (
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// MountError is a failed system call of the mount API.
type MountError struct {
	Op string // the system call
	// Source is what was mounted or copied: a file system type, or the name of a
	// mount. Target is where. Each is empty if the call has none.
	Source, Target string
	// Parameter is the mount option, or the command, of fsconfig(2).
	Parameter string
	Flags     uint64
	Message   string // from the kernel; empty for most calls
	Err       error  // the errno
}

func (e *MountError) Error() string {
	s := e.Op
	if e.Source != "" {
		s += fmt.Sprintf(" %q", e.Source)
	}
	if e.Target != "" {
		s += fmt.Sprintf(" at %q", e.Target)
	}
	if e.Parameter != "" {
		s += " " + e.Parameter
	}
	if e.Flags != 0 {
		s += " (" + flagNames(e.Op, e.Flags) + ")"
	}
	if e.Message != "" {
		s += fmt.Sprintf(" (kernel: %s)", e.Message)
	}
	return s + ": " + e.Err.Error()
}

func (e *MountError) Unwrap() error { return e.Err }

// mountError is nil for a call that succeeded.
func mountError(e *MountError) error {
	if e.Err == nil {
		return nil
	}
	return e
}

type flag struct {
	bit  uint64
	name string
}

// flagTable has the flags that the wrappers of this package pass, by system call: a bit
// means something else in each.
var flagTable = map[string][]flag{
	"open_tree": {
		{unix.OPEN_TREE_CLONE, "OPEN_TREE_CLONE"},
		{unix.OPEN_TREE_CLOEXEC, "OPEN_TREE_CLOEXEC"},
		{unix.AT_EMPTY_PATH, "AT_EMPTY_PATH"},
		{unix.AT_RECURSIVE, "AT_RECURSIVE"},
	},
	"move_mount": {
		{unix.MOVE_MOUNT_F_EMPTY_PATH, "MOVE_MOUNT_F_EMPTY_PATH"},
		{unix.MOVE_MOUNT_T_EMPTY_PATH, "MOVE_MOUNT_T_EMPTY_PATH"},
	},
	"mount_setattr": {
		{unix.MS_SHARED, "MS_SHARED"},
		{unix.MS_SLAVE, "MS_SLAVE"},
		{unix.MS_PRIVATE, "MS_PRIVATE"},
		{unix.MS_UNBINDABLE, "MS_UNBINDABLE"},
	},
	"umount2": {
		{unix.MNT_DETACH, "MNT_DETACH"},
		{unix.UMOUNT_NOFOLLOW, "UMOUNT_NOFOLLOW"},
	},
}

func flagNames(op string, bits uint64) string {
	var names []string
	for _, f := range flagTable[op] {
		if bits&f.bit != 0 {
			names = append(names, f.name)
			bits &^= f.bit
		}
	}
	if bits != 0 {
		names = append(names, fmt.Sprintf("%#x", bits))
	}
	return strings.Join(names, "|")
}

func nameOf(f *os.File) string {
	if f == nil {
		return ""
	}
	return f.Name()
}

func targetName(dir *os.File, name string) string { return path.Join(nameOf(dir), name) }
