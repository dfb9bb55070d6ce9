package hook

import (
	"context"
	"errors"
	"os"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/freezer"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// freezeForRepair freezes the container but for the masters and their services,
// if a master is still to be told or replaced: then nobody can run into a mount
// that is not served between the resume and the repair. Where it is not
// possible, those who do are let go by the repair.
func (r Runner) freezeForRepair(ctx context.Context, sc *scene, criu *nsenter.Process, rec *record, needed []Mount) {
	if len(needed) == 0 {
		return
	}
	spare := []int{sc.init.PID()}
	for i := range needed {
		spare = append(spare, needed[i].Master.PID)
	}
	frozen, err := freezer.Freeze(ctx, freezer.Request{
		Members: sc.init.Descendants, Spare: spare, Until: criu, Version2Only: true,
	})
	if errors.Is(err, freezer.ErrShared) {
		return // an ordinary container without groups of its own
	}
	if err != nil {
		r.Warn(err)
		return
	}
	ref := frozen.Leave()
	rec.Frozen = &ref
}

func pick(mounts []Mount, list []int) []Mount {
	var picked []Mount
	for _, i := range list {
		picked = append(picked, mounts[i])
	}
	return picked
}

// preserveLate does what preserve does while the container runs: it is frozen
// for the time, so that no access comes in between. Where it cannot be frozen
// it runs on; the swap itself leaves no gap.
func (r Runner) preserveLate(ctx context.Context, sc *scene, rec *record, fillers []*os.File, strategy Strategy) {
	if len(rec.wanted()) == 0 || !sc.hasAutofs() {
		return
	}
	if (store{r.Directory}).toldOrNot(sc.init) {
		rec.NotPreserved = map[string]string{}
		for _, d := range rec.Devices {
			rec.NotPreserved[d.Path] = "an earlier run was ended while it told systemd the new number"
		}
		return
	}
	sc.numbers = holdDescriptors(rec.Devices)
	if rec.Moment == "" {
		// Not told by CRIU: a unit may have been started again since the restore.
		snapshot, err := r.snapshot(ctx, Event{PID: sc.init.PID()}, sc, rec)
		if err != nil {
			r.Warn(err)
			return
		}
		rec.leftAlone = pathsToLeave(snapshot)
	}
	frozen, err := freezer.Freeze(ctx, freezer.Request{Members: sc.inhabitants})
	if err != nil {
		r.Warn(err)
	}
	waiting, err := sc.waiters()
	if err != nil {
		r.Warn(err)
	}
	if strategy == PreserveOnly {
		waiting = nil // the administrator wants it so
	}
	// The container's own stale mounts may have each other's old numbers: each
	// round gives some back.
	for have := -1; have < len(rec.Preserved); {
		have = len(rec.Preserved)
		if err := sc.readTables(); err != nil {
			r.Warn(err)
			break
		}
		if err := r.preserveIn(ctx, sc, rec, fillers, waiting); err != nil {
			r.Warn(err)
			break
		}
		fillers = nil
		if len(rec.NotPreserved) == 0 {
			break
		}
	}
	if frozen != nil {
		if err := frozen.Thaw(); err != nil {
			r.Warn(err)
		}
	}
}

// pathsToLeave are the paths of mounts that are healthy by their dates, or whose
// systemd could not be asked or does not serve them.
func pathsToLeave(s *Snapshot) []string {
	var paths []string
	for _, d := range Plan(s) {
		if m := &s.Mounts[d.Mount]; m.Main && m.DeviceBefore != 0 && (d.Cure == Healthy || d.Cure == Unrepaired) {
			paths = append(paths, m.Path)
		}
	}
	return paths
}
