package hook

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/respawn"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// How long it is waited, after the end of a daemon, for somebody else to start
// it again. Supervisors make a pause of a second after a service that ended
// soon. For a daemon that has no parent which started it, only the process that
// reaps it learns of its end, at once.
const (
	superviseTime = 2500 * time.Millisecond
	noticeTime    = 50 * time.Millisecond
	lookInterval  = 5 * time.Millisecond
)

// maxArguments bounds an automount daemon's command line, in bytes.
const maxArguments = 1 << 20

// describeAlone looks at a daemon that no systemd runs.
func (s *scene) describeAlone(m *Master) {
	p := s.masters[m.PID]
	alone := &Alone{}
	line, err := p.ReadFile("cmdline", maxArguments)
	if err != nil {
		m.Problem = err.Error()
		return
	}
	alone.Foreground, alone.Forced = automountFlags(strings.Split(string(line), "\x00"))
	parent, err := p.Status("PPid")
	if err == nil {
		alone.ParentPID, err = strconv.Atoi(parent)
	}
	if err != nil {
		m.Problem = err.Error()
		return
	}
	if p, err := nsenter.Open(alone.ParentPID); err == nil {
		comm, _ := p.ReadFile("comm", 1<<10)
		alone.Parent = strings.TrimSuffix(string(comm), "\n")
		p.Close()
	}
	theirs, err := p.Namespace("pid")
	ours, err2 := s.init.Namespace("pid")
	if err = errors.Join(err, err2); err == nil {
		err = respawn.Check(p.Process)
	}
	switch {
	case err != nil:
		alone.Obstacle = err.Error()
	case theirs != ours:
		alone.Obstacle = "it is in a pid namespace below the container's"
	}
	m.Alone = alone
}

// automountFlags finds the options --foreground and --force in automount's
// arguments. Short options may stand together and values next to them, so in
// doubt they are there.
func automountFlags(arguments []string) (foreground, forced bool) {
	for _, word := range arguments[1:] {
		switch {
		case len(word) > 3 && word[:2] == "--":
			foreground = foreground || strings.HasPrefix("--foreground", word) || strings.HasPrefix("--systemd-service", word)
			forced = forced || strings.HasPrefix("--force", word)
		case len(word) > 1 && word[0] == '-':
			foreground = foreground || strings.ContainsAny(word, "fS")
			forced = forced || strings.Contains(word, "F")
		}
	}
	return foreground, forced
}

// revive replaces a daemon that no systemd runs. A twin of it is there, stopped,
// before it is ended. Then, if nobody else starts it again, the twin runs.
func (w *work) revive(ctx context.Context, list []int) error {
	m := &w.snapshot.Mounts[list[0]].Master
	if err := w.canRelease(list); err != nil {
		return err
	}
	if m.Alone.Foreground || m.Alone.Killed {
		w.thaw() // a supervisor, or the group that the daemon was in, may be frozen
	}
	d, err := w.daemon(ctx, m)
	if err != nil {
		return err
	}
	defer respawn.Close(d.files)
	twin, err := respawn.Prepare(ctx, d.Twin, d.files)
	if err != nil {
		if !m.Alone.Killed {
			err = errors.Join(err, d.drop(ctx))
		}
		return err
	}
	defer twin.Close()
	old := w.scene.masters[m.PID]
	if old != nil && !m.Alone.Killed {
		if err := enoughTime(ctx); err != nil {
			return errors.Join(err, d.drop(ctx))
		}
		if err := old.Signal(unix.SIGKILL); err != nil && !errors.Is(err, os.ErrNotExist) {
			return errors.Join(err, d.drop(ctx))
		}
	}
	// From here on the next run goes on where this one stops.
	if old != nil {
		if err := old.WaitEnd(ctx); err != nil {
			return err
		}
	}
	started := m.Alone.Killed && w.startedAgain(ctx, twin.Process(), d.Others, lookInterval) // by that run, or a supervisor
	if !started {
		for _, i := range list {
			w.release(&w.snapshot.Mounts[i])
		}
		wait := noticeTime
		if d.Foreground {
			wait = superviseTime
		}
		started = w.startedAgain(ctx, twin.Process(), d.Others, wait)
	}
	if !started {
		if err := twin.Go(m.ContainerPID); err != nil {
			return err
		}
		if !d.Foreground {
			if err := twin.WaitDaemon(ctx); err != nil {
				return err
			}
		}
	}
	if err := w.waitServed(ctx, list, m.PID); err != nil {
		return err
	}
	return d.drop(ctx)
}

// startedAgain waits a while for a process that was not there before and runs
// the same program as the twin.
func (w *work) startedAgain(ctx context.Context, twin *nsenter.Process, before []string, wait time.Duration) bool {
	for end := time.Now().Add(wait); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(lookInterval) {
		now, err := w.scene.running(twin)
		if err != nil {
			return false
		}
		if slices.ContainsFunc(now, func(identity string) bool { return !slices.Contains(before, identity) }) {
			return true
		}
	}
	return false
}

// running lists the other processes of the container, by identity, that run the
// same program as this one.
func (s *scene) running(as *nsenter.Process) ([]string, error) {
	pids, err := s.init.Descendants()
	if err != nil {
		return nil, err
	}
	var list []string
	for _, pid := range pids {
		if pid == as.PID() {
			continue
		}
		if p, err := nsenter.Open(pid); err == nil {
			if sameProgram(p, as) {
				list = append(list, p.Identity())
			}
			p.Close()
		}
	}
	return list, nil
}

func sameProgram(a, b *nsenter.Process) bool {
	one, err := a.OpenExecutable()
	if err != nil {
		return false
	}
	defer one.Close()
	two, err := b.OpenExecutable()
	if err != nil {
		return false
	}
	defer two.Close()
	x, err := one.Stat()
	y, err2 := two.Stat()
	return err == nil && err2 == nil && os.SameFile(x, y)
}

// waitServed waits until all mounts have another daemon than the old one.
func (w *work) waitServed(ctx context.Context, list []int, old int) error {
	for {
		err := w.scene.readTables()
		var now []Mount
		if err == nil {
			now, err = w.scene.survey()
		}
		if err != nil {
			return err
		}
		left := ""
		shown := placesOf(now)
		for _, i := range list {
			m := &w.snapshot.Mounts[i]
			after := shown[place{m.Namespace, m.Path}]
			if after == nil || after.Master.Kind != master.Automount || after.Master.PID == old {
				left = m.Path
			}
		}
		if left == "" {
			return nil
		}
		select {
		case <-time.After(lookInterval):
		case <-ctx.Done():
			return errors.Join(errors.New("the new automount daemon does not take over "+strconv.Quote(left)), context.Cause(ctx))
		}
	}
}
