// Package lab starts, checkpoints and restores real systemd containers, for
// tests that run inside the laboratory's node (test/node/enter).
//
// A test reads:
//
//	checkpoint := lab.Start(t, lab.Options{}).Checkpoint(t)
//	container := checkpoint.Restore(t, lab.RestoreOptions{})
//	touch := container.Touch(t, "/mnt/idle/marker")
//
// # A dead automount must not hang a test
//
// A process that touches a stale automount sleeps in the kernel until it is
// killed. Nothing here waits for one without a time limit, and none writes to a
// pipe that somebody reads to its end: a stuck process would hold the other
// side open. See [Container.Touch].
//
// # An exit status proves nothing
//
// While a dead trigger is detached, an access "succeeds" on the empty folder
// beneath. Tests read a marker file that exists only on the file system that
// the automount brings.
//
// # Device numbers change for certain
//
// The kernel gives the lowest free anonymous device number. [Start] holds the
// lowest ones while the container boots, and [Container.Checkpoint] frees them:
// so every file system of a restored container gets a number below all those
// that the container had, and its old numbers are free.
package lab
