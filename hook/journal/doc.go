// Package journal owns everything below /run/autofs-restore-hook: what one run
// leaves for later ones.
//
//   - An intent ([Kind], [Entry]) says what a run is about to change. It is
//     written before the change and removed after it, so that the next run can undo
//     or finish an interrupted operation (package cure, recoveries). The kinds are
//     [Replacement], [UnitRestart], [SavedCovers], [ParkedWaiters] and [ParkedTriggers].
//   - The ledger ([Confirmed]) lists the mounts that are known to their masters.
//   - The handover ([Handover]) goes from one stage of a restore to the next.
//   - Locks: one run at a time for each container, and for device numbers.
//   - Reports.
//
// An entry names a process by number and start time, so that no other process can
// take it for its own; [Store.Sweep] removes the entries of processes that have
// ended. A run that writes or removes an intent holds the container's lock.
//
// One rule holds for entries that cannot be used. An entry that another release
// wrote or that is damaged is removed, with an error: no later run could use it
// either. An entry that cannot be read for another reason (EIO, EMFILE) stays.
package journal
