// Package container opens the container under repair and finds its autofs mounts.
//
// A [Container] has open files: processes, mount namespaces and their mount tables, the
// masters of autofs mounts and connections to systemd. A [Snapshot] describes the
// container as plain data, for package plan.
//
// Opening and surveying a container changes nothing, enters no mount namespace and
// calls no process: both work while all processes are stopped. A master that is not a
// process of the container (package owner) is only named.
package container
