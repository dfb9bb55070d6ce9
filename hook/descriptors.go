package hook

import (
	"os"

	"golang.org/x/sys/unix"
)

// fdNumbers keeps numbers of file descriptors free for mounts: the kernel
// shows in a mount's options the number of the pipe that it was given, and CRIU
// saves it with the next checkpoint. A number that is wanted is taken by a
// placeholder before anything else of ours can get it.
type fdNumbers struct{ placeholders map[int]bool }

// holdDescriptors takes those of the wanted numbers that are free.
func holdDescriptors(wanted []oldDevice) fdNumbers {
	d := fdNumbers{placeholders: map[int]bool{}}
	null, err := os.OpenFile(os.DevNull, os.O_RDONLY, 0)
	if err != nil {
		return d // then the mounts show other numbers
	}
	defer null.Close()
	for _, w := range wanted {
		if w.FD <= 0 || !w.Systemd || d.placeholders[w.FD] {
			continue
		}
		fd, err := unix.FcntlInt(null.Fd(), unix.F_DUPFD_CLOEXEC, w.FD)
		switch {
		case err != nil: // above the limit of this process
		case fd == w.FD:
			d.placeholders[fd] = true
		default:
			unix.Close(fd)
		}
	}
	return d
}

// free makes a number available.
func (d fdNumbers) free(fd int) {
	if d.placeholders[fd] {
		delete(d.placeholders, fd)
		unix.Close(fd)
	}
}

func (d fdNumbers) close() {
	for fd := range d.placeholders {
		unix.Close(fd)
	}
}
