package hook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
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
	// Daemon is the number that the daemon had in the container.
	Daemon int `json:"daemon"`
}

const endedSuffix = ".service"

// finishTime bounds how long a run waits for what an earlier one has begun: the
// other mounts need time, too.
const finishTime = 2 * time.Second

func endedName(init *nsenter.Process, daemon int) string {
	return init.Identity() + "." + strconv.Itoa(daemon) + endedSuffix
}

func (s store) noteEnded(init *nsenter.Process, service string, daemon int) error {
	data, err := json.Marshal(endedService{Version: recordVersion, Service: service, Daemon: daemon})
	if err != nil {
		return fmt.Errorf("note of an ended service: %w", err)
	}
	return writeFile(s.settledDir(), endedName(init, daemon), data)
}

func (s store) forgetEnded(init *nsenter.Process, daemon int) error {
	return s.forgetNote(endedName(init, daemon))
}

func (s store) forgetNote(name string) error {
	return removeFile(filepath.Join(s.settledDir(), name), "note of an ended service")
}

// finishEnded starts the services whose daemons killed runs have ended. One that
// is active is left as it is.
func (s store) finishEnded(ctx context.Context, sc *scene) error {
	names, err := filepath.Glob(filepath.Join(s.settledDir(), sc.init.Identity()+".*"+endedSuffix))
	if err != nil || len(names) == 0 {
		return err
	}
	sc.releaseUnserved(ctx)
	manager, err := sc.manager(ctx, sc.init.PID()) // goes on after this
	if err != nil {
		return fmt.Errorf("start what an earlier run has ended: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, finishTime)
	defer cancel()
	var errs []error
	for _, name := range names {
		errs = append(errs, s.finishOneEnded(ctx, manager, name))
	}
	return errors.Join(append(errs, sc.readTables())...)
}

func (s store) finishOneEnded(ctx context.Context, manager *master.Manager, path string) error {
	data, err := os.ReadFile(path)
	var ended endedService
	if err == nil {
		err = json.Unmarshal(data, &ended)
	}
	if err == nil && ended.Version != recordVersion {
		err = fmt.Errorf("version %d, want %d", ended.Version, recordVersion)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("note of an ended service: %w", err), s.forgetNote(filepath.Base(path)))
	}
	if err := manager.Start(ctx, ended.Service, ended.Daemon); err != nil {
		return fmt.Errorf("start %q, which an earlier run has ended: %w", ended.Service, err)
	}
	return s.forgetNote(filepath.Base(path))
}

// releaseUnserved lets go of everybody who waits on a direct mount that nobody
// serves: a new automount would hang on it.
func (s *scene) releaseUnserved(ctx context.Context) {
	_ = s.openRoots(ctx, everyRoot) // who cannot be reached waits on
	list, err := s.survey()
	if err != nil {
		return
	}
	for i := range list {
		m := &list[i]
		root := s.roots[rootKey{m.Namespace, m.ID}]
		if root != nil && m.Master.Kind == master.None && m.Options.Type.Trigger() && !m.Options.Catatonic() {
			_ = autofs.Release(root)
		}
	}
}
