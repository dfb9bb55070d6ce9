// Package owner decides whether a process belongs to a container. Most autofs mounts in a
// container are not its own: they are bind mounts from the host or from another
// container. Their masters are found by their pipes, and may be any process of the
// machine.
//
// A process is the container's own if it descends from the container's first
// process and is not in the host's mount namespace. It follows:
//
//   - Pid namespaces need no check. A process is always created in the pid namespace of
//     its parent or below (setns(2), pid_namespaces(7)), so descendants of the first
//     process are in its pid namespace or below.
//   - Containers that share a pid namespace are distinguished by descent.
//   - A daemon that forks twice is adopted by PID 1 of the pid namespace of its
//     parent, or by a subreaper below that (find_new_reaper in kernel/exit.c): in a
//     container with a pid namespace of its own it still descends from the first
//     process. So does one that was started with "podman exec" and forked twice.
//   - An injected process (nsenter, "runc exec") has its parent outside. It was not
//     restored either: CRIU dumps only descendants of the first process. The mounts that
//     it serves are not stale.
//
// In a shared pid namespace PID 1 is in another container, so a daemon that forks twice
// leaves its container. CRIU does not dump it, for the same reason.
package owner
