package hook

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/cgroup"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/criuimage"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/cure"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/forecast"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
	"golang.org/x/sys/unix"
)

// Inspect looks at a container and plans, changing nothing.
func (r Runner) Inspect(ctx context.Context, e Event) (*report.Report, error) {
	r.Warn = report.TruncateWarnings(r.Warn)
	ctx, cancel := context.WithTimeoutCause(ctx, Deadline, fmt.Errorf("not finished within %s", Deadline))
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
	sc, err := container.Open(init, e.Everyone)
	if err != nil {
		return err
	}
	defer sc.Close()
	rep.Container = r.containerName(e, init)
	r.named(rep.Container)
	if sc.HasAutofs() {
		r.protect(init)
	}
	session := cure.NewSession(sc, r.journal(), r.Warn)
	defer session.Close()
	if err := session.LoadParkings(); err != nil {
		r.Warn(err)
	}
	snapshot, err := r.snapshot(e, sc, &journal.Handover{})
	if err != nil {
		return err
	}
	rep.Describe(snapshot, plan.New(snapshot))
	if r.Machine != nil {
		rep.Checkpoint = r.obstacles(ctx, sc, snapshot)
	}
	if text := sc.AllInOwnGroup(); text != "" {
		rep.Warnings = append(rep.Warnings, text)
	}
	return nil
}

// obstacles is what CRIU would fail at if the container were checkpointed now, or
// restored elsewhere. Never nil.
func (r Runner) obstacles(ctx context.Context, sc *container.Container, snapshot *container.Snapshot) []forecast.Problem {
	problems := append([]forecast.Problem{}, r.Machine.Problems()...)
	var list []forecast.Autofs
	for i := range snapshot.Mounts {
		list = append(list, autofsOf(sc, &snapshot.Mounts[i]))
	}
	problems = append(problems, forecast.Maps(list)...)
	for _, w := range snapshot.Waiters {
		problems = append(problems, forecast.Waiting(w.PID, w.Command, w.Path))
	}
	if hasSystemdAutomount(snapshot) && !hasDevice(sc.Init) {
		problems = append(problems, forecast.NoDevice())
	}
	own := ""
	if inside, err := cgroup.HasOwnNamespace(sc.Init); err != nil {
		r.Warn(err)
	} else if !inside {
		if own, err = cgroup.Own(sc.Init); err != nil {
			r.Warn(err)
		}
	}
	watches, err := forecast.Watches(ctx, sc.Init, sc.Members, own, *r.Machine)
	if err != nil {
		r.Warn(err)
	}
	return append(problems, watches...)
}

func autofsOf(sc *container.Container, m *container.Mount) forecast.Autofs {
	a := forecast.Autofs{Namespace: m.Namespace, Path: m.Path, Type: m.Options.Type, Daemon: m.Master.Kind == master.Automount}
	for _, c := range m.Below {
		if c.Type != "autofs" {
			a.Covers = append(a.Covers, c.Path)
		}
	}
	if p := sc.Masters[m.Master.PID]; p != nil && m.Main {
		a.Unread = unread(p.Process, m.Master.PipeFD)
	}
	return a
}

// unread is how many bytes are in a pipe that a process has open for reading.
func unread(p *nsenter.Process, number int) int {
	fd, err := sys.PidfdGetfd(p.Pidfd(), number)
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

// hasDevice reports whether the container has /dev/autofs. That its device rules
// allow it cannot be seen from here.
func hasDevice(init *nsenter.Process) bool {
	f, err := init.OpenInRoot("/dev/autofs", unix.O_PATH)
	if err != nil {
		return false
	}
	defer f.Close()
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(10, 235)
}

// imageObstacles is what a restore will, or may, fail at, in one line; "" for
// nothing.
func imageObstacles(set *criuimage.Set, watched *criuimage.Watched) string {
	var list []forecast.Autofs
	for _, m := range set.Mounts {
		if o, err := autofs.ParseOptions(m.Options); err == nil {
			list = append(list, forecast.Autofs{Namespace: uint64(m.NamespaceID), Path: m.MountPoint, Type: o.Type, Daemon: !strings.HasPrefix(m.Source, "systemd-")})
		}
	}
	pinned := 0
	for _, w := range watched.Watches {
		if w.Path == "" {
			pinned++
		}
	}
	return forecast.OfImages(list, pinned)
}
