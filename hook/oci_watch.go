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

// restoringProcess finds the CRIU that restores the container's first process,
// at the createRuntime hook of a restore: it traces that process, which is
// still a copy of itself (criu/cr-restore.c). The error is fs.ErrNotExist if
// the process is not being restored.
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

// imageDirectory finds the directory of checkpoint images among the files that
// CRIU has open: the one with an inventory.img.
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

// leaveWatcher is what a createRuntime hook does at a restore where CRIU calls no
// action script of ours: it creates the control groups, and leaves a process behind
// that repairs the container when the restore has ended.
func (r Runner) leaveWatcher(e Event) error {
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
		return nil // the action script is at work
	}
	dir, err := imageDirectory(criu)
	if err != nil {
		return err
	}
	if has, err := hasAutofs(dir); err != nil || !has {
		return err
	}
	r.journal().Sweep() // a restore that fails is not repaired
	// The cgroup namespace does not exist yet.
	if err := r.createGroups(init, criu, dir, cure.AnyView); err != nil {
		r.Warn(err)
	}
	return startWatcher(e, init, criu)
}

// startWatcher starts the watcher, with nothing of ours: a runtime waits for every
// process that has its hook's output open.
func startWatcher(e Event, init, criu *nsenter.Process) error {
	engine := container.OpenEngine(criu)
	if engine != nil {
		defer engine.Close()
	}
	p, err := spawn.Self([]string{WatchVerb, criu.Identity(), init.Identity(), e.ContainerID}, nil, engine, spawn.All)
	if p != nil {
		defer p.Close()
	}
	if err != nil {
		return fmt.Errorf("start the process that waits for the end of the restore: %w", err)
	}
	return nil
}

// WatchEvent reads the arguments of a watcher.
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
	waiting, cancel := context.WithTimeoutCause(ctx, restoreTime, errors.New("the restore does not end"))
	defer cancel()
	if err := criu.WaitEnd(waiting); err != nil {
		return nil, err
	}
	if init.Alive() != nil || init.Ended() {
		return nil, nil // the restore failed
	}
	ctx, cancel = context.WithTimeoutCause(ctx, Deadline, fmt.Errorf("not finished within %s", Deadline))
	defer cancel()
	return r.repair(ctx, e)
}

// isRestore reports whether a state at createRuntime is one of a restore: runc
// calls the hook with the status "stopped" and a process then, at a fresh start
// with "creating".
func isRestore(state *specs.State) bool { return state.Status == specs.StateStopped && state.Pid > 0 }
