// Package autofs is the kernel's side of an automounter: what the kernel says
// about an autofs mount (its options in mountinfo, the packets in its pipe),
// and what it can be told (the ioctls of /dev/autofs and of a mount's root, and
// a new superblock made to measure).
//
// Nothing here walks a path that belongs to a container, except
// [Control.OpenMount], which says so: a walk onto an autofs root waits for its
// master, and the master of a stale mount never answers. Everything else works
// on file descriptors, which never wait, even while processes are blocked on
// the mount.
//
// The package knows nothing about CRIU, namespaces or particular masters. It is
// not a library for writing an automounter: requests are parsed and answered,
// nothing is mounted on demand.
//
// Kernel sources: fs/autofs/{inode,root,dev-ioctl,waitq}.c and
// include/uapi/linux/{auto_fs,auto_dev-ioctl}.h, read at 6.18.
package autofs
