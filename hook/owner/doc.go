// Package owner decides whose a process is. The autofs mount that a container
// shows most often is not its own: it is the host's, or another container's, bound
// into it. Who serves it is found by its pipe, and may be any process of the
// machine.
//
// A process is the container's own if it descends from the container's first
// process and is not in the host's mount namespace. Everything else follows from
// that:
//
//   - Pid namespaces need no look of their own. A process is only ever born in the
//     namespace of its parent or below (setns(2), pid_namespaces(7)), so what
//     descends from the first process is in its pid namespace or below.
//   - Containers that share a pid namespace are told apart by descent alone.
//   - A daemon that forks twice is adopted by PID 1 of the pid namespace of its
//     parent, or by a subreaper below that (find_new_reaper in kernel/exit.c): in a
//     container with a pid namespace of its own it still descends from the first
//     process. So does one that was started with "podman exec" and forked twice.
//   - A process that was injected (nsenter, "runc exec") has its parent outside. It
//     was not restored either: CRIU dumps what descends from the first process, and
//     nothing else. What it serves it has mounted itself, and knows.
//
// Where a pid namespace is shared, PID 1 is in another container, and a daemon that
// forks twice leaves its own for good. CRIU does not dump it, for the same reason.
package owner
