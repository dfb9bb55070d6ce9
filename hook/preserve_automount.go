package hook

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

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

// announceReload sends SIGHUP to the daemons whose triggers are parked. They are
// stopped, so that the signal waits for them: they reload when they run again, and
// may be ready before Repair begins.
//
// A daemon blocks the signal in all of its threads and asks for it (sigwait(3)). One
// that does not block it now is left to Repair: CRIU would see the signal arrive.
func (s *scene) announceReload() error {
	var errs []error
	for _, p := range s.parkings {
		daemon, err := s.daemon(p)
		if daemon == nil || err != nil {
			errs = append(errs, err)
			continue
		}
		if blocks(daemon.Process, unix.SIGHUP) {
			errs = append(errs, daemon.Signal(unix.SIGHUP))
		}
		daemon.Close()
	}
	return errors.Join(errs...)
}

// blocks reports whether all threads of a process block a signal.
func blocks(p *nsenter.Process, sig unix.Signal) bool {
	tasks, err := p.ReadDirNames("task")
	for _, task := range tasks {
		status, readErr := p.ReadFile("task/"+task+"/status", 1<<16)
		_, rest, _ := strings.Cut(string(status), "\nSigBlk:\t")
		mask, _, _ := strings.Cut(rest, "\n")
		blocked, parseErr := strconv.ParseUint(mask, 16, 64)
		if err = errors.Join(err, readErr, parseErr); err != nil || blocked&(1<<(sig-1)) == 0 {
			return false
		}
	}
	return err == nil
}
