// Package master identifies the processes that serve autofs mounts.
//
// A master is found by the pipe that the kernel writes requests to: the mount option
// pipe_ino= identifies it, and the process that has its read end open is the master. The
// name of that process only decides which kind of master it is. What acts on a master
// (packages systemd and automount) acts on the container's own processes only (package
// owner), so a process gains nothing by a false name.
package master

// Kind is the kind of an autofs mount's master.
type Kind string

const (
	// Systemd is the container's PID 1, serving .automount units. It remembers
	// the device number (src/core/automount.c, dev_id).
	Systemd Kind = "systemd"
	// Automount is the daemon of the autofs package. For direct and offset
	// mounts it remembers device number and root inode (daemon/direct.c).
	Automount Kind = "automount"
	// Other is a process that is neither. One that answers through a file
	// descriptor it holds survives a restore.
	Other Kind = "other"
	// Outside is a process that is not the container's: the host's, another
	// container's, or an injected one. Its mounts are not repaired.
	Outside Kind = "outside"
	// None means that no process has the read end of the pipe: the mount is
	// catatonic, or its master is gone.
	None Kind = "none"
)
