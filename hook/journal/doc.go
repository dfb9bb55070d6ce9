// Package journal owns all files below /run/autofs-restore-hook, through which a run
// passes data to later runs.
//
//   - An intent ([Kind], [Entry]) describes a change before it is made. It is removed
//     after the change, so that the next run can undo or finish an interrupted operation
//     (package cure, recoveries). The kinds are [Replacements], [UnitRestarts],
//     [Covers], [WaiterParkings] and [TriggerParkings].
//   - The ledger ([Store.SetConfirmed]) lists the mounts that their masters know.
//   - The handover ([Handover]) passes data from one stage of a restore to the next.
//   - Locks: one for each container, and one for device numbers.
//   - Reports.
//
// The name of an entry has the pid and the start time of a process, so that no other
// process can have the same name. [Store.Sweep] removes the entries of processes that
// have ended. A run holds the container's lock while it writes or removes an intent.
//
// An entry that is damaged or has another version is removed, with an error: no later
// run could use it either. An entry that cannot be read for another reason (EIO, EMFILE)
// stays.
package journal
