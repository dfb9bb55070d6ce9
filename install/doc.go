// Package install puts the program where container engines find it, makes them
// call it, and undoes that.
//
// # What makes an engine call it
//
// CRIU's own configuration does for every engine: one action-script line in
// /etc/criu/default.conf, which every CRIU reads whatever started it. So this is
// all that is installed unless an engine is named. CRIU before 3.19 aborts
// every checkpoint and restore of runc with such a line in place (commit
// 28d005638): there it is refused.
//
// OCI hooks are for machines that cannot have it. Engines write them into a
// container when they create it. So they make themselves felt at every start,
// and a container keeps them after they are uninstalled: without the program it
// would not start any more.
//
// # Nothing half done
//
// A run plans all changes first; a dry run ends there. Then every new file is
// written next to its place and synchronised, and only when all of them are
// there they are renamed, in an order in which no file names one that is absent.
// If a step fails, those before it are undone. A killed run leaves at most
// temporary files, which the next one removes. Runs on the same root wait for
// each other.
//
// # Nothing that is not ours
//
// What was written is noted in [RecordFile], with the folders that had to be
// made. Only that is removed, and only while it still is what was written. The
// program stays as long as something calls it: a hook or an action script that
// is missing stops containers. Program and script stay while a CRIU runs, too.
//
// # Another root
//
// All paths are resolved inside [Options.Root] by openat2(2) with
// RESOLVE_IN_ROOT: no link leads out of it. Programs of that root are run in it
// (chroot) to ask for their versions.
package install
