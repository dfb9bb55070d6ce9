//go:build linux

package autofs

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
)

// Reopen opens an O_PATH descriptor of an autofs root, or a detached mount from [Create],
// again with O_RDONLY, as ioctls require.
//
// It opens "." relative to the descriptor. For "." the kernel neither crosses to a
// covering mount nor sends the master a request (handle_dots() in fs/namei.c; measured on
// 6.18, also while processes are blocked on the mount), and unlike /proc/self/fd it needs
// no procfs, which in a container is the container's. O_DIRECTORY would trigger a mount.
func Reopen(opath *os.File) (*os.File, error) {
	return sys.OpenAt(opath, ".", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
}
