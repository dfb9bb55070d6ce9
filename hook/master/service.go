package master

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
	"github.com/godbus/dbus/v5"
)

// settleInterval is the pause between two questions to systemd while it
// notices the end of a main process, which takes it about 20 ms.
const settleInterval = 2 * time.Millisecond

// reapTime is how long a process may have a number that nobody has reaped.
const reapTime = 50 * time.Millisecond

// ServiceOf asks systemd for the name of the service whose main process has the given
// number inside the container. It is an error if there is none.
func (m *Manager) ServiceOf(ctx context.Context, containerPID int) (string, error) {
	if containerPID <= 0 || containerPID > math.MaxInt32 {
		return "", fmt.Errorf("service of process %d: not a process number", containerPID)
	}
	fail := func(err error) (string, error) {
		return "", fmt.Errorf("service of process %d: %w", containerPID, noAnswer(ctx, err))
	}
	var object dbus.ObjectPath
	if err := m.call(ctx, "GetUnitByPID", []any{uint32(containerPID)}, &object); err != nil {
		return fail(err)
	}
	var name string
	if err := m.property(ctx, object, busName+".Unit", "Id", &name); err != nil {
		return fail(err)
	}
	main, err := m.mainPID(ctx, name)
	if err != nil {
		return "", err
	}
	if main != containerPID {
		return "", fmt.Errorf("process %d belongs to %s, whose main process is %d: systemd would not start it again",
			containerPID, name, main)
	}
	return name, nil
}

const serviceType = busName + ".Service"

// Kill ends the service's main process with SIGKILL and returns when systemd
// has noticed. No stop job is run, so nothing is unmounted. main is that process,
// and containerPID its number inside the container. The signal is not left to
// systemd if that can be helped: it would still send it if the caller was killed
// meanwhile, and the next run had seen that the process lives.
func (m *Manager) Kill(ctx context.Context, service string, main *nsenter.Process, containerPID int) error {
	err := main.Signal(unix.SIGKILL)
	if errors.Is(err, unix.EPERM) { // no CAP_KILL, and it is another user's
		err = noAnswer(ctx, m.call(ctx, "KillUnit", []any{service, "main", int32(unix.SIGKILL)}))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("kill the main process of %s: %w", service, err)
	}
	if err := main.WaitEnd(ctx); err != nil {
		return fmt.Errorf("main process of %s: %w", service, err)
	}
	return m.AwaitEnd(ctx, service, containerPID)
}

// AwaitEnd returns when systemd has noticed that the service's main process, which
// had the given number in the container, has ended: starting the service earlier
// would fail. A start that nothing comes of any more is given up.
func (m *Manager) AwaitEnd(ctx context.Context, service string, containerPID int) error {
	for {
		now, err := m.serviceState(ctx, service)
		switch {
		case err != nil:
			return fmt.Errorf("state of %s: %w", service, err)
		case now.main == 0 && (now.active == "failed" || now.active == "inactive"):
			return nil
		case now.main != 0 && int(now.main) != containerPID:
			return nil // the service's Restart= setting has brought back a daemon
		case now.abandoned():
			if err := m.giveUp(ctx, service); err != nil {
				return fmt.Errorf("give up the start of %s: %w", service, err)
			}
		}
		select {
		case <-time.After(settleInterval):
		case <-ctx.Done():
			return fmt.Errorf("%s after SIGKILL of its main process: still %s: %w", service, now.active, context.Cause(ctx))
		}
	}
}

// serviceState is what systemd knows of a service.
type serviceState struct {
	active, sub   string
	main, control uint32
}

func (m *Manager) serviceState(ctx context.Context, service string) (s serviceState, err error) {
	object, err := m.unit(ctx, service)
	if err != nil {
		return s, err
	}
	questions := []question{
		m.askProperty(ctx, object, busName+".Unit", "ActiveState"),
		m.askProperty(ctx, object, busName+".Unit", "SubState"),
		m.askProperty(ctx, object, serviceType, "MainPID"),
		m.askProperty(ctx, object, serviceType, "ControlPID"),
	}
	for i, value := range []any{&s.active, &s.sub, &s.main, &s.control} {
		err = errors.Join(err, questions[i].answer(ctx, value))
	}
	return s, err
}

// abandoned reports whether the service is being started by nobody: what was
// executed has ended, and systemd waits for it to name its main process, for as
// long as TimeoutStartSec= says.
func (s serviceState) abandoned() bool {
	return s.active == "activating" && s.sub == "start" && s.main == 0 && s.control == 0
}

// giveUp ends the start of a service if no process of it is left: there is
// nothing that the stop could unmount.
func (m *Manager) giveUp(ctx context.Context, service string) error {
	var processes [][]any // control group, number, command line
	err := m.call(ctx, "GetUnitProcesses", []any{service}, &processes)
	if err == nil && len(processes) == 0 {
		_, err = m.job(ctx, "StopUnit", service, ignoreDependencies)
	}
	return err
}

// Start starts a service that Kill has ended, and waits until systemd calls it
// started. A service that its own Restart= setting has brought back is left as
// it is. dead is the number that the old main process had in the container.
//
// automount finds the number of its predecessor in a file and refuses to start
// while a process with that number runs the same program (daemon/flag.c,
// flag_is_owned). After a restore the container's process numbers start low
// again, so the new daemon itself is likely to get it. A process of ours has it
// meanwhile.
func (m *Manager) Start(ctx context.Context, service string, dead int) error {
	placeholder, err := occupy(m.pid1, dead)
	// One of a run that was killed has it until it is reaped.
	for end := time.Now().Add(reapTime); errors.Is(err, unix.EEXIST) && time.Now().Before(end); {
		time.Sleep(settleInterval)
		placeholder, err = occupy(m.pid1, dead)
	}
	if err == nil {
		defer placeholder.end()
	} else if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if err := m.call(ctx, "ResetFailedUnit", []any{service}); err != nil && !isNoSuchUnit(err) {
		return fmt.Errorf("reset-failed %s: %w", service, noAnswer(ctx, err))
	}
	result, err := m.job(ctx, "StartUnit", service, replace)
	if err != nil {
		return fmt.Errorf("start %s: %w", service, err)
	}
	if result != "done" {
		return fmt.Errorf("start %s: job result %q; see \"systemctl status %s\" in the container", service, result, service)
	}
	return nil
}

func (m *Manager) mainPID(ctx context.Context, service string) (int, error) {
	object, err := m.unit(ctx, service)
	var pid uint32
	if err == nil {
		err = m.property(ctx, object, serviceType, "MainPID", &pid)
	}
	if err != nil {
		return 0, fmt.Errorf("main process of %s: %w", service, err)
	}
	return int(pid), nil
}
