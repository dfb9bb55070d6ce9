// Package hook repairs the autofs mounts of a container that CRIU has restored.
//
// # The story
//
//	event  →  snapshot  →  plan  →  apply  →  report
//
// An [Event] says who is being restored and at which moment. A [Snapshot]
// describes every autofs mount in every mount namespace of the container, its
// master, what covers it and what the checkpoint images remember of it. [Plan]
// is a pure function from a snapshot to a list of cures. Applying a cure is the
// only step that changes anything, and is verified. The [Report] says what was
// found and done for each mount.
//
// # Four moments
//
// Reserve, at CRIU's pre-restore: no restored process exists. The checkpoint
// images tell which device numbers a systemd remembers; those that are free are
// held. Prepare, at post-setup-namespaces: the control groups that systemd watches
// and CRIU does not recreate are created, without which the restore fails.
// Preserve, at pre-resume: all mounts are final, all processes stopped. The mounts
// that a systemd serves are recreated with the numbers held, beneath whatever
// covers them, in every mount namespace; a parking mount takes the place of each
// stale trigger of an automount daemon. Repair, at post-resume: the daemon reloads
// and mounts its triggers on the parking mounts, systemd re-executes itself and its
// state is corrected, or its units are restarted; waiters are released, the result
// is verified and reported. Each moment is complete alone.
//
// Between the moments a record goes from run to run, and files that must stay
// open are kept by a process of our own (package helper).
//
// # How a restore is told from a start
//
// An action script is only ever called by CRIU, as its child or by a script that is,
// with the stage in the environment: pre-resume and post-resume exist in a restore
// only. The environment is CRIU's own; nothing of the container is in it. The image
// directory in it, /proc/CRIU/fd/N, says which CRIU it is.
//
// No OCI runtime runs poststart at a restore, so an OCI hook called at that
// stage is called at a start, by a person or by a future runtime. The command
// line of the calling runtime says "create", "start" or "run" when it is a
// fresh start, and then nothing is looked at. Otherwise the master decides: CRIU
// forks processes and does not execute their programs, as a runtime does
// (restored). What a restored systemd remembers is in the state that it writes
// when it re-executes itself, and only that decides which of its mounts are stale.
//
// None of this can be forged from inside a container to the harm of another one:
// the caller's command line and environment belong to the host, and whether a
// process was executed is the kernel's word. What the container's own systemd says
// about its units it can invent, but only about its own units, and all that follows
// happens to itself: it is re-executed, its units are restarted. Annotations are
// never looked at: they travel inside checkpoint archives, and the author of the
// archive wrote them.
//
// # What is never done
//
// No path of the container is walked in a way that triggers an automount, no
// program of the container is run, and nothing is done in a mount namespace that is
// the host's own. No process is asked, signalled or traced that is not the
// container's (package owner), whatever mount it serves there. While the container
// runs, nothing is done to a mount of a systemd before that has answered, and an
// automount daemon gets a SIGHUP only if it handles that and will find its master
// map.
package hook
