// Package nsenter looks at, and works inside, another process's mount
// namespace without ever confusing that process with another one.
//
// # A pid is turned into a Process once
//
// A pid is a number that the kernel may give to somebody else at any time.
// [Open] turns it into a [Process], which holds a pidfd and the process's
// directory in /proc. Both belong to that one process for good: once it is
// dead, every access fails with ESRCH instead of reaching a stranger.
// Everything else in this module takes a *Process, never a pid.
//
// # Entering a mount namespace
//
// setns(CLONE_NEWNS) wants a thread that shares its root and working directory
// with no other thread (kernel: fs/namespace.c, mntns_install: EINVAL if
// fs->users != 1). [Process.InMountNamespace] starts a goroutine, locks it to
// its thread, calls unshare(CLONE_FS) and setns, and runs the function there.
// The thread is never unlocked: it ends with the goroutine, so that no other
// goroutine can ever find itself inside the container.
//
// # When not to use this package
//
// To read /proc/PID/mountinfo or a link in /proc/PID/fd no namespace has to be
// entered: use [Process.ReadFile] and [Process.Readlink]. To open one file of
// the container, such as a socket, use [Process.OpenInRoot], which resolves the
// path inside the container's root in one step.
//
// # What is refused
//
// A process whose mount namespace is the caller's own, or that of the host's
// PID 1, is refused with [ErrOwnNamespace]: the host's own automounts are never
// touched.
package nsenter
