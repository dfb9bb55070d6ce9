package hook

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/cure"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/helper/spawn"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/stage"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// WatchVerb is the hidden command with which the program runs as a watcher.
const WatchVerb = "watch-restore"

// restoringProcess opens the CRIU process that restores the container's first process.
// At the createRuntime hook of a restore CRIU traces that process, which still runs
// CRIU's own program (criu/cr-restore.c). The error is fs.ErrNotExist if the process is
// not being restored.
func restoringProcess(init *nsenter.Process) (*nsenter.Process, error) {
	exe, err := init.Readlink("exe")
	if err != nil {
		return nil, err
	}
	value, err := init.Status("TracerPid")
	if err != nil {
		return nil, err
	}
	if tracer, err := strconv.Atoi(value); err == nil && tracer > 0 {
		criu, err := nsenter.Open(tracer)
		if err != nil {
			return nil, err
		}
		if own, err := criu.Readlink("exe"); err == nil && own == exe {
			return criu, nil
		}
		criu.Close()
	}
	return nil, fmt.Errorf("process %d is not being restored: %w", init.PID(), fs.ErrNotExist)
}

// imageDirectory returns the directory of the checkpoint images, as a path in /proc: the
// one with an inventory.img among the files that CRIU has open.
func imageDirectory(criu *nsenter.Process) (string, error) {
	names, err := criu.ReadDirNames("fd")
	if err != nil {
		return "", err
	}
	for _, name := range names {
		link := path.Join("/proc", strconv.Itoa(criu.PID()), "fd", name)
		if _, err := os.Stat(path.Join(link, "inventory.img")); err == nil {
			return link, nil
		}
	}
	return "", fmt.Errorf("process %d has no directory of checkpoint images open: %w", criu.PID(), fs.ErrNotExist)
}

// prepareAndWatch handles createRuntime at a restore where CRIU does not call the action
// script: it creates the control groups and starts a watcher, a process that repairs the
// container after the restore.
func (r Runner) prepareAndWatch(e Event) error {
	init, err := nsenter.Open(e.PID)
	if err != nil {
		return err
	}
	defer init.Close()
	criu, err := restoringProcess(init)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a fresh start
	}
	if err != nil {
		return err
	}
	defer criu.Close()
	if handover, err := r.journal().LoadHandover(criu); err == nil && handover != nil {
		return nil // CRIU calls the action script
	}
	dir, err := imageDirectory(criu)
	if err != nil {
		return err
	}
	if has, err := hasAutofs(dir); err != nil || !has {
		return err
	}
	r.journal().Sweep() // no Repair follows a restore that fails
	// The cgroup namespace does not exist yet.
	if err := r.createGroups(init, criu, dir, cure.AnyView); err != nil {
		r.Warn(err)
	}
	return r.warnNotMoved(startWatcher(e, init, criu))
}

// startWatcher starts the watcher without any open file of this process: a runtime waits
// for every process that has its hook's output open.
func startWatcher(e Event, init, criu *nsenter.Process) error {
	engine := container.OpenEngine(criu)
	if engine != nil {
		defer engine.Close()
	}
	p, err := spawn.StartSelf([]string{WatchVerb, criu.Identity(), init.Identity(), e.ContainerID}, nil, engine, spawn.AllCapabilities)
	if p != nil {
		defer p.Close()
	}
	if err != nil {
		return fmt.Errorf("start the watcher of the restore: %w", err)
	}
	return nil
}

// WatchEvent reads the event from the arguments of [WatchVerb].
func WatchEvent(args []string) (Event, error) {
	if len(args) != 3 {
		return Event{}, fmt.Errorf("%s: want three arguments: CRIU, the container's first process, its name", WatchVerb)
	}
	e := Event{Trigger: "oci:createRuntime", Stage: stage.Repair, ContainerID: args[2], Strategy: container.Auto, Watch: true}
	var err error
	if e.CRIU, e.criuStart, err = nsenter.ParseIdentity(args[0]); err == nil {
		e.PID, e.initStart, err = nsenter.ParseIdentity(args[1])
	}
	if err != nil {
		return Event{}, fmt.Errorf("%s: %w", WatchVerb, err)
	}
	return e, nil
}

// watch waits for the end of the restore and repairs the container then.
func (r Runner) watch(ctx context.Context, e Event) (*report.Report, error) {
	criu, err := nsenter.OpenIdentity(e.CRIU, e.criuStart)
	if err != nil {
		return nil, err
	}
	defer criu.Close()
	init, err := nsenter.OpenIdentity(e.PID, e.initStart)
	if err != nil {
		return nil, err
	}
	defer init.Close()
	restore, cancel := context.WithTimeoutCause(ctx, restoreTime, fmt.Errorf("the restore has not ended within %s", restoreTime))
	defer cancel()
	if err := criu.WaitEnd(restore); err != nil {
		return nil, err
	}
	if init.Alive() != nil || init.Ended() {
		return nil, nil // the restore failed
	}
	if r.Restored != nil {
		r.Restored()
	}
	e.CRIU = 0 // another process may have its number now
	ctx, cancel = context.WithTimeoutCause(ctx, Deadline, fmt.Errorf("not finished within %s", Deadline))
	defer cancel()
	return r.repair(ctx, e)
}

// isRestore reports whether a state at createRuntime belongs to a restore: runc then
// passes the status "stopped" and a process, and at a fresh start "creating".
func isRestore(state *specs.State) bool { return state.Status == specs.StateStopped && state.Pid > 0 }
