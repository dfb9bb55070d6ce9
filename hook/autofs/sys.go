//go:build linux

package autofs

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
)

// Reopen turns an O_PATH descriptor on an autofs root, or a detached mount from
// [Create], into a real one (O_RDONLY, close-on-exec), which ioctls need.
//
// It opens "." relative to the descriptor. The kernel takes "." as it is: it
// neither crosses onto a covering mount nor asks the master (handle_dots() in
// fs/namei.c; measured on 6.18, also while processes are blocked on the mount),
// and unlike /proc/self/fd it needs no procfs, which inside a container is the
// container's. O_DIRECTORY would trigger a mount, so it is left out. The error
// is an *os.PathError.
func Reopen(opath *os.File) (*os.File, error) {
	return sys.OpenAt(opath, ".", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
}
