// Package autofs is the kernel interface of an automounter: the options of an autofs
// mount in mountinfo, the packets in its pipe, the ioctls of /dev/autofs and of a mount's
// root, and the creation of superblocks.
//
// Only [Control.OpenMount] walks a path in a container: a walk onto an autofs root waits
// for its master, and the master of a stale mount never answers. All other functions use
// file descriptors, which never wait, even while processes are blocked on the mount.
//
// The package is independent of CRIU, namespaces and particular masters. It is not a
// library for automounters: it parses and answers requests, but mounts nothing on demand.
//
// Kernel sources: fs/autofs/{inode,root,dev-ioctl,waitq}.c and
// include/uapi/linux/{auto_fs,auto_dev-ioctl}.h, read at 6.18.
package autofs
