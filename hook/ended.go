package hook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

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

func (s store) noteEnded(init *nsenter.Process, service string, daemon int) error {
	data, err := json.Marshal(endedService{Version: recordVersion, Service: service, Daemon: daemon})
	if err != nil {
		return fmt.Errorf("note of an ended service: %w", err)
	}
	return writeFile(s.settledDir(), init.Identity()+endedSuffix, data)
}

func (s store) forgetEnded(init *nsenter.Process) error {
	err := os.Remove(filepath.Join(s.settledDir(), init.Identity()+endedSuffix))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("note of an ended service: %w", err)
	}
	return nil
}

// finishEnded starts the service that a killed run has ended. One that is active
// is left as it is.
func (s store) finishEnded(ctx context.Context, sc *scene) error {
	data, err := os.ReadFile(filepath.Join(s.settledDir(), sc.init.Identity()+endedSuffix))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var ended endedService
	if err == nil {
		err = json.Unmarshal(data, &ended)
	}
	if err == nil && ended.Version != recordVersion {
		err = fmt.Errorf("version %d, want %d", ended.Version, recordVersion)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("note of an ended service: %w", err), s.forgetEnded(sc.init))
	}
	manager, err := sc.manager(ctx, sc.init.PID())
	if err == nil {
		err = manager.Start(ctx, ended.Service, ended.Daemon)
	}
	if err != nil {
		return fmt.Errorf("start %q, which an earlier run has ended: %w", ended.Service, err)
	}
	return errors.Join(s.forgetEnded(sc.init), sc.readTables())
}
