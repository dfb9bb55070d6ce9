// Package lab starts, checkpoints and restores real systemd containers, for tests that
// run inside the laboratory's node (test/node/enter).
//
// A test reads:
//
//	checkpoint := lab.Start(t, lab.Options{}).Checkpoint(t)
//	container := checkpoint.Restore(t, lab.RestoreOptions{})
//	touch := container.Touch(t, "/mnt/idle/marker")
//
// # A stale automount must not hang a test
//
// A process that touches a stale automount sleeps in the kernel until it is killed.
// Nothing here waits for such a process without a time limit, and none writes to a pipe
// that another process reads to its end: a stuck process would keep the write end open.
// See [Container.Touch].
//
// # An exit status proves nothing
//
// While a stale trigger is detached, an access "succeeds" on the empty folder beneath.
// Tests read a marker file that exists only on the automounted file system.
//
// # Device numbers always change
//
// The kernel assigns the lowest free anonymous device number. [Start] takes the lowest
// ones while the container boots, and [Container.Checkpoint] frees them: so every file
// system of a restored container gets a lower number than all those of the checkpointed
// one, whose numbers are free.
package lab
