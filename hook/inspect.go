package hook

import (
	"context"
	"fmt"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/cgroup"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/cure"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/forecast"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/helper/spawn"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"

	"golang.org/x/sys/unix"
)

// Inspect reports the plan for a container and changes nothing. With a
// [Runner.Machine] the report also has the problems that CRIU would have with the
// container. The error is also in the report.
func (r Runner) Inspect(ctx context.Context, e Event) (*report.Report, error) {
	r.Warn = report.TruncateWarnings(r.Warn)
	ctx, cancel := context.WithTimeoutCause(ctx, Deadline-spawn.Took(), fmt.Errorf("not finished within %s", Deadline))
	defer cancel()
	begin := time.Now()
	rep := r.newReport(e)
	rep.Planned = true
	err := r.inspectInto(ctx, e, rep)
	rep.Finish(begin, err)
	return rep, err
}

func (r Runner) inspectInto(ctx context.Context, e Event, rep *report.Report) error {
	init, err := nsenter.Open(e.PID)
	if err != nil {
		return err
	}
	defer init.Close()
	c, err := container.Open(init, e.Visitors)
	if err != nil {
		return err
	}
	defer c.Close()
	rep.Container = r.containerName(e, init)
	r.named(rep.Container)
	if c.HasAutofs() {
		r.protect(init)
	}
	session := cure.NewSession(c, r.journal(), r.Warn)
	defer session.Close()
	if err := session.LoadParkings(); err != nil {
		r.Warn(err)
	}
	snapshot, err := r.snapshot(e, c, &journal.Handover{})
	if err != nil {
		return err
	}
	rep.Describe(snapshot, plan.New(snapshot))
	if r.Machine != nil {
		rep.Checkpoint = r.checkpointProblems(ctx, c, snapshot)
	}
	rep.Warnings = append(rep.Warnings, c.GroupWarnings()...)
	return nil
}

// checkpointProblems returns the problems that CRIU would have with a checkpoint of the
// container now, or with its restore on another machine; never nil.
func (r Runner) checkpointProblems(ctx context.Context, c *container.Container, snapshot *container.Snapshot) []forecast.Problem {
	problems := append([]forecast.Problem{}, r.Machine.Problems()...)
	var list []forecast.Autofs
	for i := range snapshot.Mounts {
		list = append(list, autofsOf(c, &snapshot.Mounts[i]))
	}
	problems = append(problems, forecast.Maps(list)...)
	for _, w := range snapshot.Waiters {
		problems = append(problems, forecast.BlockedProcess(w.PID, w.Command, w.Path))
	}
	if hasSystemdAutomount(snapshot) && !hasDevice(c.Init) {
		problems = append(problems, forecast.NoDevice())
	}
	group := "" // of a container without a cgroup namespace
	if has, err := cgroup.HasOwnNamespace(c.Init); err != nil {
		r.Warn(err)
	} else if !has {
		if group, err = cgroup.Own(c.Init); err != nil {
			r.Warn(err)
		}
	}
	watches, err := forecast.Watches(ctx, c.Init, c.Members, group, *r.Machine)
	if err != nil {
		r.Warn(err)
	}
	return append(problems, watches...)
}

// autofsOf describes a mount for package forecast.
func autofsOf(c *container.Container, m *container.Mount) forecast.Autofs {
	a := forecast.Autofs{Namespace: m.Namespace, Path: m.Path, Type: m.Options.Type, Daemon: m.Master.Kind == master.Automount}
	for _, cover := range m.Below {
		if cover.Type != "autofs" {
			a.Covers = append(a.Covers, cover.Path)
		}
	}
	if daemon := c.Masters[m.Master.PID]; daemon != nil && m.Main {
		a.Unread = unreadBytes(daemon.Process, m.Master.PipeFD)
	}
	return a
}

// unreadBytes returns how many bytes are in the pipe that descriptor pipeFD of the
// process reads; 0 if that is unknown.
func unreadBytes(p *nsenter.Process, pipeFD int) int {
	fd, err := sys.PidfdGetfd(p.Pidfd(), pipeFD)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil {
		return 0
	}
	return n
}

func hasSystemdAutomount(s *container.Snapshot) bool {
	for i := range s.Mounts {
		if s.Mounts[i].Master.Kind == master.Systemd {
			return true
		}
	}
	return false
}

// hasDevice reports whether the container has /dev/autofs. It does not check the
// container's device rules.
func hasDevice(init *nsenter.Process) bool {
	f, err := init.OpenInRoot(autofs.ControlPath, unix.O_PATH)
	if err != nil {
		return false
	}
	defer f.Close()
	st, err := sys.Stat(f)
	return err == nil && autofs.IsControl(&st)
}
