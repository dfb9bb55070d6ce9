// Package hook repairs the autofs mounts of a container that CRIU has restored.
//
// # Overview
//
//	event  →  snapshot  →  plan  →  cures  →  report
//
// An [Event] names the container's first process and the stage of its restore.
// A snapshot (package container) describes every autofs mount in every mount
// namespace of the container: its master, its covers and its entry in the
// checkpoint images. A plan (package plan) is a pure function of the snapshot: one
// decision for each mount. Only a cure (package cure) changes anything; its result is
// verified. The report (package report) has the outcome of each mount.
//
// # Four stages
//
// Reserve, at CRIU's pre-restore: no restored process exists. The checkpoint
// images have the device numbers that a systemd remembers; a helper holds those
// that are free. Prepare, at post-setup-namespaces: the control groups that systemd
// watches and CRIU does not recreate are created; the restore fails without them.
// Preserve, at pre-resume: all mounts are final, all processes stopped. The mounts
// that a systemd serves are recreated with the reserved numbers, beneath their
// covers, in every mount namespace; a parking mount replaces each stale trigger of
// an automount daemon. Repair, at post-resume: the daemon reloads and mounts its
// triggers on the parking mounts, systemd re-executes itself and its state is
// corrected, or its units are restarted; waiters are released, the result is
// verified and reported. Each stage also works without the stages before it.
//
// The stages are separate processes. A handover in the journal (package journal)
// passes data from one to the next; a helper process (package fdstore) keeps open
// the files that must outlive a stage.
//
// # Restore or fresh start
//
// An action script is only ever called by CRIU, directly or through another script, with
// the stage in the environment: pre-resume and post-resume exist in a restore only. The
// environment is CRIU's own; nothing of the container is in it. The image directory in it,
// /proc/CRIU/fd/N, says which CRIU it is.
//
// No OCI runtime runs poststart at a restore, so that hook is called at a fresh
// start, by a person or by a future runtime. At a fresh start the command line of
// the calling runtime contains "create", "start" or "run", and the hook ends at
// once. Otherwise the first process decides: CRIU forks processes without executing
// their programs, a runtime executes them (container.Restored). The device numbers
// that a restored systemd remembers are in the state that it writes when it
// re-executes itself; only that state decides which of its mounts are stale.
//
// A container cannot forge any of this to the harm of another container: the
// caller's command line and environment belong to the host, and the kernel records
// whether a process has executed a program. A container's systemd can lie about its
// units, but only about its own, and only it bears the consequences: it is
// re-executed, its units are restarted. Annotations are ignored: they are stored in
// checkpoint archives, whose author is not trusted.
//
// # Guarantees
//
// The program does not resolve a path of the container in a way that triggers an
// automount, runs no program of the container, and changes nothing in the host's own
// mount namespace. It does not call, signal or trace a process that is not the
// container's (package owner), even if that process serves a mount there. While the
// container runs, a mount of a systemd is changed only after that systemd has
// answered, and an automount daemon gets a SIGHUP only if it handles the signal and
// its master map exists.
package hook
