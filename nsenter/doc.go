// Package nsenter reads the state of a process, and works inside its mount namespace,
// without ever confusing that process with another one.
//
// # A pid is turned into a Process once
//
// The kernel may give the number of a process to another process at any time.
// [Open] turns it into a [Process], which holds a pidfd and the process's
// directory in /proc. Both belong to that one process: after its end every access fails
// with ESRCH instead of reaching another process. What acts on a process takes a *Process,
// never a pid; lists of processes have pids.
//
// # Entering a mount namespace
//
// setns(CLONE_NEWNS) wants a thread that shares its root and working directory
// with no other thread (kernel: fs/namespace.c, mntns_install: EINVAL if
// fs->users != 1). [Process.InMountNamespace] starts a goroutine, locks it to
// its thread, calls unshare(CLONE_FS) and setns, and runs the function there.
// The thread is never unlocked: it ends with the goroutine, so that no other
// goroutine runs inside the container.
//
// # When not to use this package
//
// Reading /proc/PID/mountinfo or a link in /proc/PID/fd requires no change of
// namespace: use [Process.ReadFile] and [Process.Readlink]. To open one file of the
// container, such as a socket, use [Process.OpenInRoot], which resolves the path inside
// the container's root with one system call.
//
// # What is refused
//
// A process whose mount namespace is the caller's own, or that of the host's
// PID 1, is refused with [ErrOwnNamespace]: the host's own automounts are never
// touched.
package nsenter
