// Package systemd talks to a container's systemd, and corrects what it remembers.
//
// [Connect] reaches it through its private socket, where the kernel attests its identity
// (SO_PEERCRED). [Reexecute] has it re-execute itself and appends corrections to the
// state that it serializes on the way; what systemd remembers is read there. Everything
// acts on a process of the container only (package owner).
//
// docs/systemd-versions.md lists what differs between versions.
package systemd
