package cure

import (
	"context"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/helper/fdstore"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// detachStaleKeys detaches the keys with stale offset triggers that have no users. The
// others are left to Repair.
func (s *Session) detachStaleKeys(ctx context.Context, h *journal.Handover, list []container.Mount) {
	byDaemon := map[int][]*container.Mount{}
	for i := range list {
		if m := &list[i]; m.Master.Kind == master.Automount && m.Options.Type == autofs.Offset && !m.Parking && s.inDaemonSpace(m) {
			byDaemon[m.Master.PID] = append(byDaemon[m.Master.PID], m)
		}
	}
	for pid, triggers := range byDaemon {
		for path, err := range s.detachUnusedKeys(ctx, s.container.Masters[pid], triggers) {
			if err == nil {
				h.Unmounted = append(h.Unmounted, path)
			}
		}
	}
	if len(h.Unmounted) > 0 {
		if err := s.container.ReadTables(); err != nil {
			s.warn(err)
		}
	}
}

// inDaemonSpace reports whether the mount is in the mount namespace of its master.
func (s *Session) inDaemonSpace(m *container.Mount) bool {
	home, err := s.container.Masters[m.Master.PID].Namespace("mnt")
	return err == nil && home.Inode == m.Namespace
}

// parkTriggers creates parking mounts for the direct triggers of automount daemons.
func (s *Session) parkTriggers(ctx context.Context, criu *nsenter.Process, list []container.Mount) []*mounts.Replacement {
	byDaemon := map[int][]*container.Mount{}
	for i := range list {
		m := &list[i]
		if m.Master.Kind != master.Automount || m.Options.Type != autofs.Direct || m.Parking || m.Confirmed || len(m.Covers) > 0 {
			continue
		}
		if s.inDaemonSpace(m) {
			byDaemon[m.Master.PID] = append(byDaemon[m.Master.PID], m)
		}
	}
	if len(byDaemon) == 0 {
		return nil
	}
	engine := container.OpenEngine(criu)
	if engine != nil {
		defer engine.Close()
	}
	var replacements []*mounts.Replacement
	for pid, triggers := range byDaemon {
		p, err := s.newParking(ctx, s.container.Masters[pid], triggers,
			fdstore.Request{Bound: s.container.Init, Model: engine, Lifetime: parkTime})
		if err != nil {
			s.warn(err) // Repair parks their processes
			continue
		}
		for i, t := range p.Mounts {
			replacements = append(replacements, &mounts.Replacement{Path: t.Path, Old: t.Stale, New: p.lots[i].Tree, Device: t.Parking})
		}
	}
	return replacements
}
