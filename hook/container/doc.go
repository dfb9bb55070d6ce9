// Package container is the container under repair.
//
// A [Container] holds what is open of it: its processes, mount namespaces and mount
// tables, the masters of its autofs mounts and the connections to those that are a
// systemd. A [Snapshot] describes it as plain data, from which package plan decides.
//
// Opening and surveying a container changes nothing, enters no mount namespace and
// asks no process: both work while all processes are stopped. A master that is not the
// container's own process (package owner) is named, and nothing else is done with it.
package container
