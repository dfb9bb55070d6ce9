package hook

import (
	"context"
	"errors"

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
