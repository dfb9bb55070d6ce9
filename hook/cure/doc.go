// Package cure changes things: it carries out the cures that package plan decides on.
//
//	preserve.go        preserved: a superblock with the old device number
//	preserve_park.go   prepares reloaded, while all processes are stopped
//	reexec.go          reexecuted: systemd's serialized state is corrected
//	reload*.go, park.go, offsets.go
//	                   reloaded: automount mounts its triggers again
//	restart*.go        restarted: the unit of a systemd that cannot be told
//	waiters*.go        processes that wait on a mount meanwhile
//	groups.go          control groups that a restore needs
//	recover.go         the ordered table of what an interrupted run leaves
//
// A [Session] is the work of one run on one container. What it is about to change is
// in the journal before it changes; the recovery stands in the file named ..._recover.go.
package cure
