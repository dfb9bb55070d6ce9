package master

import (
	"context"
	"fmt"
	"sync"

	"github.com/godbus/dbus/v5"
)

// Names of systemd's D-Bus interface (org.freedesktop.systemd1(5)).
const (
	busName     = "org.freedesktop.systemd1"
	managerPath = "/org/freedesktop/systemd1"
	managerType = busName + ".Manager"
)

// call calls a method of the manager and stores its results.
func (m *Manager) call(ctx context.Context, method string, args []any, results ...any) error {
	return m.conn.Object(busName, managerPath).CallWithContext(ctx, managerType+"."+method, 0, args...).Store(results...)
}

// property reads a property of an object, which is of the type that value
// points to.
func (m *Manager) property(ctx context.Context, object dbus.ObjectPath, kind, name string, value any) error {
	return m.askProperty(ctx, object, kind, name).answer(ctx, value)
}

// question is one for a property that is not answered yet. Many are asked before
// the first answer is waited for: systemd takes longer to wake up than to answer.
type question struct {
	name string
	call *dbus.Call
}

func (m *Manager) askProperty(ctx context.Context, object dbus.ObjectPath, kind, name string) question {
	done := make(chan *dbus.Call, 1)
	return question{name, m.conn.Object(busName, object).GoWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, done, kind, name)}
}

func (q question) answer(ctx context.Context, value any) error {
	var v dbus.Variant
	<-q.call.Done // at the end of ctx too
	err := q.call.Store(&v)
	if err == nil {
		err = v.Store(value)
	}
	if err != nil {
		return fmt.Errorf("property %s: %w", q.name, noAnswer(ctx, err))
	}
	return nil
}

// unit returns the object of a unit.
func (m *Manager) unit(ctx context.Context, name string) (dbus.ObjectPath, error) {
	var path dbus.ObjectPath
	if err := m.call(ctx, "LoadUnit", []any{name}, &path); err != nil {
		return "", fmt.Errorf("%s: %w", name, noAnswer(ctx, err))
	}
	return path, nil
}

// Modes of jobs (systemctl(1), --job-mode): what becomes of queued jobs, and
// whether other units are stopped or started with this one.
const (
	replace            = "replace"
	ignoreDependencies = "ignore-dependencies"
)

// job runs a unit job and returns systemd's word for its result: "done",
// "failed", "canceled", "timeout", "dependency" or "skipped". method is
// "StartUnit", "StopUnit" or "RestartUnit".
func (m *Manager) job(ctx context.Context, method, name, mode string) (string, error) {
	var job dbus.ObjectPath
	if err := m.call(ctx, method, []any{name, mode}, &job); err != nil {
		return "", noAnswer(ctx, err)
	}
	for {
		if result, ended := m.jobs.take(job); ended {
			return result, nil
		}
		select {
		case <-m.jobs.added:
		case <-m.conn.Context().Done():
			return "", noAnswer(ctx, dbus.ErrClosed)
		case <-ctx.Done():
			return "", noAnswer(ctx, context.Cause(ctx))
		}
	}
}

// maxJobs bounds how many results are kept that were not asked for.
const maxJobs = 4096

// jobResults are the results of jobs that have ended. systemd sends them to
// every client that is connected to its private socket.
type jobResults struct {
	mutex   sync.Mutex
	results map[dbus.ObjectPath]string
	added   chan struct{} // one element after each new result
}

func newJobResults() *jobResults {
	return &jobResults{results: map[dbus.ObjectPath]string{}, added: make(chan struct{}, 1)}
}

// DeliverSignal is called with each signal, of which most are not ours.
func (r *jobResults) DeliverSignal(kind, name string, signal *dbus.Signal) {
	var (
		number       uint32
		job          dbus.ObjectPath
		unit, result string
	)
	if kind != managerType || name != "JobRemoved" || dbus.Store(signal.Body, &number, &job, &unit, &result) != nil {
		return
	}
	r.mutex.Lock()
	if len(r.results) >= maxJobs {
		clear(r.results)
	}
	r.results[job] = result
	r.mutex.Unlock()
	select {
	case r.added <- struct{}{}:
	default:
	}
}

// take returns the result of a job, once.
func (r *jobResults) take(job dbus.ObjectPath) (string, bool) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	result, ended := r.results[job]
	delete(r.results, job)
	return result, ended
}
