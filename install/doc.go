// Package install copies the program to where container engines expect it, makes them
// call it, and undoes both.
//
// # What makes an engine call it
//
// CRIU's own configuration does for every engine: each CRIU, whatever started it, reads
// /etc/criu/default.conf and calls the program of its action-script line. This is all
// that Install writes unless an engine is named. CRIU before 3.19 aborts every
// checkpoint and restore of runc with such a line (commit 28d005638), so Install refuses
// to write it there.
//
// OCI hooks are for machines that cannot have the line. An engine copies them into a
// container when it creates the container. So they delay every start, and the container
// keeps them after an uninstall: without the program it would not start any more.
//
// # All or nothing
//
// A run plans all changes first; a dry run ends there. Then it writes and synchronises
// every new file next to its destination, and renames them when all are complete, in an
// order in which no file names an absent one. A failed step rolls back the steps before.
// A killed run leaves at most temporary files, which the next run removes. Runs on the
// same root exclude each other.
//
// # Only its own files
//
// Install records what it wrote in [RecordFile], with the directories that it created.
// Uninstall removes only these, and only if they are unchanged. It keeps the program
// while something calls it, since a missing hook or action script stops containers, and
// keeps program and script while a CRIU runs.
//
// # Another root
//
// All paths are resolved inside [Options.Root] by pathrs-lite: no symbolic link leads out
// of it. Programs of that root are run with it as their root directory (chroot) to print
// their versions.
//
// # Own parsers
//
// CRIU's configuration format has no library. hooks_dir is one setting of a TOML file, for
// which a TOML decoder would be larger than this package. Version numbers carry suffixes
// of distributions, which golang.org/x/mod/semver rejects.
package install
