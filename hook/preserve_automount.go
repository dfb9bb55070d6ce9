package hook

import (
	"context"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/helper"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// detachKeys detaches the keys with stale offset triggers that no process uses.
// Those that are left are Repair's.
func (r Runner) detachKeys(ctx context.Context, sc *scene, rec *record, list []Mount) {
	byDaemon := map[int][]*Mount{}
	for i := range list {
		if m := &list[i]; m.Master.Kind == master.Automount && m.Options.Type == autofs.Offset && !m.Parking && sc.isHome(m) {
			byDaemon[m.Master.PID] = append(byDaemon[m.Master.PID], m)
		}
	}
	for pid, triggers := range byDaemon {
		for path, err := range sc.detachKeys(ctx, sc.masters[pid], triggers) {
			if err == nil {
				rec.Unmounted = append(rec.Unmounted, path)
			}
		}
	}
	if len(rec.Unmounted) > 0 {
		if err := sc.readTables(); err != nil {
			r.Warn(err)
		}
	}
}

// isHome reports whether the mount is in the namespace of its master.
func (s *scene) isHome(m *Mount) bool {
	home, err := s.masters[m.Master.PID].Namespace("mnt")
	return err == nil && home.Inode == m.Namespace
}

// parkTriggers makes parking mounts for the triggers of automount daemons.
func (r Runner) parkTriggers(ctx context.Context, sc *scene, criu *nsenter.Process, list []Mount) []*mounts.Replacement {
	byDaemon := map[int][]*Mount{}
	for i := range list {
		m := &list[i]
		if m.Master.Kind != master.Automount || m.Options.Type != autofs.Direct || m.Parking || m.Settled || len(m.Covers) > 0 {
			continue
		}
		if sc.isHome(m) {
			byDaemon[m.Master.PID] = append(byDaemon[m.Master.PID], m)
		}
	}
	model := modelOf(criu)
	if model != nil {
		defer model.Close()
	}
	var replacements []*mounts.Replacement
	for pid, triggers := range byDaemon {
		p, err := sc.newParking(ctx, store{r.Directory}, sc.masters[pid], triggers,
			helper.Request{Bound: sc.init, Model: model, Lifetime: parkTime})
		if err != nil {
			r.Warn(err) // Repair parks them
			continue
		}
		for i, t := range p.Mounts {
			replacements = append(replacements, &mounts.Replacement{Path: t.Path, Old: t.Stale, New: p.lots[i].Tree, Device: t.Parking})
		}
	}
	return replacements
}
