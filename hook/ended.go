package hook

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// endedService is a service whose automount daemon is ended and not yet started
// again. It is noted before the daemon is ended, so that the next run starts it
// if this one is killed in between: then the mounts have no master that the
// service could be learned from.
type endedService struct {
	Version int    `json:"version"`
	Service string `json:"service"`
	// Daemon is the number that the daemon had in the container, and Process its
	// identity: the next daemon may have the number.
	Daemon  int    `json:"daemon"`
	Process string `json:"process"`
}

var endedNote = noteKind{"containers", ".service", "note of an ended service"}

// finishTime bounds how long a run waits for what an earlier one has begun: the
// other mounts need time, too.
const finishTime = 2 * time.Second

func (s store) noteEnded(init *nsenter.Process, service string, daemon *nsenter.Process, number int) (*note, error) {
	n := endedNote.of(s, init, number)
	return n, n.save(endedService{Version: recordVersion, Service: service, Daemon: number, Process: daemon.Identity()})
}

// finishEnded starts the services whose daemons killed runs have ended. One that
// is active is left as it is.
func (s store) finishEnded(ctx context.Context, sc *scene) error {
	notes, listErr := endedNote.all(s, sc.init)
	if len(notes) == 0 {
		return listErr
	}
	sc.releaseUnserved(ctx)
	manager, err := sc.manager(ctx, sc.init.PID()) // goes on after this
	if err != nil {
		return errors.Join(listErr, fmt.Errorf("start what an earlier run has ended: %w", err))
	}
	ctx, cancel := context.WithTimeout(ctx, finishTime)
	defer cancel()
	errs := []error{listErr}
	for _, n := range notes {
		errs = append(errs, finishOneEnded(ctx, sc, manager, n))
	}
	return errors.Join(append(errs, sc.readTables())...)
}

func finishOneEnded(ctx context.Context, sc *scene, manager *master.Manager, n *note) error {
	var ended endedService
	if err := n.load(&ended); err != nil {
		return errors.Join(err, n.remove())
	}
	if p := sc.member(ended.Process); p != nil {
		defer p.Close()
		if !p.Dying() {
			return n.remove() // that run did not come to it
		}
		if err := p.WaitEnd(ctx); err != nil {
			return fmt.Errorf("end of the daemon of %q: %w", ended.Service, err)
		}
	}
	var err error
	for range startAttempts {
		if err = startEnded(ctx, manager, &ended); err == nil {
			return n.remove()
		}
	}
	return fmt.Errorf("start %q, which an earlier run has ended: %w", ended.Service, err)
}

// startAttempts is how often a service is started. The first may be what the
// earlier run has asked for, which fails if the new daemon got the number of the
// old one when that run was killed: see [master.Manager.Start].
const startAttempts = 2

func startEnded(ctx context.Context, manager *master.Manager, ended *endedService) error {
	ctx, cancel := context.WithTimeout(ctx, finishTime/startAttempts)
	defer cancel()
	if err := manager.AwaitEnd(ctx, ended.Service, ended.Daemon); err != nil {
		return err
	}
	return manager.Start(ctx, ended.Service, ended.Daemon)
}

// member opens the process that has the given identity, nil if it has ended.
func (s *scene) member(identity string) *nsenter.Process {
	for _, pid := range s.members {
		p, err := nsenter.Open(pid)
		if err != nil {
			continue
		}
		if p.Identity() == identity && !p.Ended() {
			return p
		}
		p.Close()
	}
	return nil
}

// unstarted names the services that killed runs have ended and that did not start
// again, "" if there are none. The mounts of these have been let go of and are
// catatonic.
func (s store) unstarted(init *nsenter.Process) string {
	notes, _ := endedNote.all(s, init)
	var names []string
	for _, n := range notes {
		var ended endedService
		if n.load(&ended) == nil {
			names = append(names, strconv.Quote(ended.Service))
		}
	}
	return strings.Join(names, ", ")
}

// releaseUnserved lets go of everybody who waits on a direct mount that nobody
// serves: a new automount would hang on it.
func (s *scene) releaseUnserved(ctx context.Context) {
	list, err := s.survey()
	if err != nil {
		return
	}
	_ = s.openRoots(ctx, everyRoot) // who cannot be reached waits on
	for i := range list {
		m := &list[i]
		root := s.roots[rootKey{m.Namespace, m.ID}]
		if root != nil && m.Master.Kind == master.None && m.Options.Type.Trigger() && !m.Options.Catatonic() {
			_ = autofs.Release(root)
		}
	}
}
