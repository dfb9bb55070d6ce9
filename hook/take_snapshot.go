package hook

// snapshot describes the container, and asks none of its processes. known is what
// earlier stages of the restore left.
func (r Runner) snapshot(e Event, sc *Container, known *Handover) (*Snapshot, error) {
	snapshot := &Snapshot{
		PID: e.PID, Strategy: e.Strategy, Restore: known.Moment != "" || e.Watch, Restored: restored(sc.init),
		ReexecuteReplaced: r.Config.ReexecuteReplaced,
	}
	if !sc.hasAutofs() {
		return snapshot, nil
	}
	var err error
	if snapshot.Mounts, err = sc.survey(); err != nil {
		return nil, err
	}
	if e.Everyone {
		if err := sc.checkFirst(snapshot.Mounts); err != nil {
			r.Warn(err)
		}
	}
	if err := r.journal().MarkConfirmed(sc.init, snapshot.Mounts); err != nil {
		r.Warn(err)
	}
	known.Describe(snapshot.Mounts, sc.main().id)
	nameUnits(snapshot.Mounts)
	waiting, err := sc.waiters()
	if err != nil {
		return nil, err
	}
	snapshot.Waiters = waitersInside(waiting, snapshot.Mounts)
	if !snapshot.Restore {
		sc.markRestored(snapshot)
	}
	return snapshot, nil
}
