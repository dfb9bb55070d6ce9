// Package cure carries out the cures of a plan (package plan).
//
//	preserve.go        preserved: a superblock with the old device number
//	preserve_park.go   prepares reloaded while all processes are stopped
//	reexec.go          reexecuted: systemd's serialized state is corrected
//	reload*.go, park.go, remove.go, offsets.go
//	                   reloaded: automount mounts its triggers again
//	restart*.go        restarted: the .automount unit is restarted, its covers restored
//	waiters*.go        waiters are parked, released and counted
//	replace.go, roots.go, space.go
//	                   mounts are replaced, opened and copied, for several cures
//	verify.go          the result, as the kernel shows it
//	groups.go          control groups that a restore needs
//	recover.go         the recoveries of interrupted operations, in order
//
// A [Session] is one run on one container. Every change is in the journal before it is
// made.
package cure
