package hook

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/holder"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/respawn"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// A run that is killed between the end of an automount daemon and the start of
// its twin leaves mounts that nobody serves, and nobody who knows how the daemon
// was started. So that is written down first, and a holder has the files open.

var daemonNote = noteKind{"containers", ".daemon.json", "record of an automount daemon"}

// daemon is what is needed to start an automount daemon again. The record has
// its environment, and is for root only.
type daemon struct {
	Version      int           `json:"version"`
	PID          int           `json:"pid"`
	ContainerPID int           `json:"container_pid"`
	StartTime    uint64        `json:"start_time"`
	Foreground   bool          `json:"foreground"`
	Twin         *respawn.Twin `json:"twin"`
	Holder       holder.Ref    `json:"holder"`
	Mounts       []settled     `json:"mounts"`
	// Others are the processes, by identity, that ran the same program before the
	// daemon was ended.
	Others []string `json:"others,omitempty"`

	files []*os.File
	note  *note
}

// daemon captures the daemon and writes it down, or takes what an earlier run
// has written down.
func (w *work) daemon(ctx context.Context, m *Master) (*daemon, error) {
	init := w.scene.init
	d := &daemon{note: daemonNote.of(w.store, init, m.PID)}
	err := d.load()
	if old := w.scene.masters[m.PID]; err == nil && old != nil && d.StartTime == old.StartTime() && old.Dying() {
		m.Alone.Killed = true // by a run that was killed then
	}
	if m.Alone.Killed {
		for i := range d.Holder.Files {
			f, openErr := d.Holder.Open(i)
			if err = errors.Join(err, openErr); openErr != nil {
				break
			}
			d.files = append(d.files, f)
		}
		if err != nil {
			respawn.Close(d.files)
			return nil, err
		}
		return d, nil
	}
	if err == nil {
		err = d.drop(ctx) // of a run that ended before it had done anything
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.warn(err)
	}
	*d = daemon{
		Version: recordVersion, PID: m.PID, ContainerPID: m.ContainerPID, StartTime: m.StartTime,
		Foreground: m.Alone.Foreground, note: d.note,
	}
	for i := range w.snapshot.Mounts {
		if served := &w.snapshot.Mounts[i]; served.Master.PID == m.PID {
			d.Mounts = append(d.Mounts, served.settled())
		}
	}
	if d.Others, err = w.scene.running(w.scene.masters[m.PID].Process); err != nil {
		return nil, err
	}
	if d.Twin, d.files, err = respawn.Capture(ctx, w.scene.masters[m.PID].Process); err != nil {
		return nil, err
	}
	var recorded func() error
	d.Holder, recorded, err = holder.StartUnrecorded(init, keepingTime, d.files)
	if err == nil {
		err = errors.Join(d.note.save(d), recorded())
	}
	if err != nil {
		respawn.Close(d.files)
		return nil, errors.Join(fmt.Errorf("record of the automount daemon %d: %w", m.PID, err), d.drop(ctx))
	}
	return d, nil
}

func (d *daemon) load() error {
	err := d.note.load(d)
	if err == nil && d.Twin == nil {
		err = d.note.unusable(errors.New("it does not say how the daemon was started"))
	}
	return err
}

// drop forgets a daemon, when a new one serves. The note goes last: without it
// nobody would find the holder.
func (d *daemon) drop(ctx context.Context) error {
	if err := d.Holder.Stop(ctx); err != nil {
		return err
	}
	return d.note.remove()
}

// recallDaemons marks the mounts whose daemon an earlier run has ended: nobody
// serves them, or a supervisor's new daemon does, which knows them.
func (s store) recallDaemons(init *nsenter.Process, list []Mount) error {
	return s.eachDaemon(init, func(d *daemon) error {
		for i := range list {
			d.mark(&list[i])
		}
		return nil
	})
}

// forgetDaemons drops what is not needed any more because another daemon serves.
func (s store) forgetDaemons(ctx context.Context, init *nsenter.Process, list []Mount) error {
	return s.eachDaemon(init, func(d *daemon) error {
		served := false
		for i := range list {
			switch m := &list[i]; {
			case !d.had(m):
			case m.Master.Kind == master.None || !m.identityDiffers(d):
				return nil // not all of them, yet
			case m.Master.Kind == master.Automount:
				served = true
			}
		}
		if served {
			return d.drop(ctx)
		}
		return nil
	})
}

// eachDaemon loads the records of the container's daemons.
func (s store) eachDaemon(init *nsenter.Process, f func(*daemon) error) error {
	notes, err := daemonNote.all(s, init)
	for _, n := range notes {
		d := &daemon{note: n}
		loadErr := d.load()
		switch {
		case loadErr == nil:
			loadErr = f(d)
		case errors.Is(loadErr, errUnusable):
			loadErr = errors.Join(loadErr, n.remove())
		}
		err = errors.Join(err, loadErr)
	}
	return err
}

// had reports whether it is one of the mounts that the daemon served.
func (d *daemon) had(m *Mount) bool {
	now := m.settled()
	return slices.ContainsFunc(d.Mounts, func(s settled) bool {
		s.Master = now.Master
		return s == now
	})
}

func (m *Mount) identityDiffers(d *daemon) bool {
	return m.Master.PID != d.PID || m.Master.StartTime != d.StartTime
}

func (d *daemon) mark(m *Mount) {
	switch {
	case !d.had(m):
	case m.Master.Kind == master.None:
		m.Master = Master{
			Identity:  master.Identity{Kind: master.Automount, PID: d.PID, ContainerPID: d.ContainerPID},
			StartTime: d.StartTime,
			Alone:     &Alone{Killed: true, Foreground: d.Foreground},
		}
	case m.Master.Kind == master.Automount && m.identityDiffers(d):
		m.Settled = true
	}
}
