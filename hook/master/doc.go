// Package master recognises the processes that serve autofs mounts and knows
// how each kind of them is made to serve its mounts again.
//
// A master is found through the pipe that the kernel writes requests to: the
// mount option pipe_ino= names it, and the process that has its read end open is
// the master. What a process calls itself only decides which kind of master it is
// taken for. A systemd is then asked through its own socket, with the kernel as
// witness of its identity (SO_PEERCRED), and re-executed; an automount daemon gets a
// SIGHUP. Both must be the container's (package owner), so a process that lies about
// its name gains nothing.
package master

// Kind says what serves an autofs mount.
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
	// container's, or one that was injected. Nothing is done about its mounts.
	Outside Kind = "outside"
	// None means that no process has the read end of the pipe: the mount is
	// catatonic, or its master is gone.
	None Kind = "none"
)
