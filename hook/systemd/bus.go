package systemd

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
	return m.requestProperty(ctx, object, kind, name).await(ctx, value)
}

// pendingProperty is a request for a property. Send many requests before waiting for the
// first reply: systemd takes longer to wake up than to reply.
type pendingProperty struct {
	name string
	call *dbus.Call
}

func (m *Manager) requestProperty(ctx context.Context, object dbus.ObjectPath, kind, name string) pendingProperty {
	done := make(chan *dbus.Call, 1)
	return pendingProperty{name, m.conn.Object(busName, object).GoWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, done, kind, name)}
}

func (q pendingProperty) await(ctx context.Context, value any) error {
	var v dbus.Variant
	<-q.call.Done // also at the end of ctx
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

// replace is the mode of all jobs: that of systemctl(1), --job-mode.
const replace = "replace"

// job runs a unit job and returns its result: "done", "failed", "canceled", "timeout",
// "dependency" or "skipped". method is "StartUnit" or "RestartUnit".
func (m *Manager) job(ctx context.Context, method, name string) (string, error) {
	var job dbus.ObjectPath
	if err := m.call(ctx, method, []any{name, replace}, &job); err != nil {
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

// maxJobs bounds how many results of other clients' jobs are kept.
const maxJobs = 4096

// jobResults holds the results of ended jobs. systemd sends them to all clients of its
// private socket.
type jobResults struct {
	mutex   sync.Mutex
	results map[dbus.ObjectPath]string
	added   chan struct{} // one element after each new result
}

func newJobResults() *jobResults {
	return &jobResults{results: map[dbus.ObjectPath]string{}, added: make(chan struct{}, 1)}
}

// DeliverSignal receives all signals of the connection.
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

// take returns the result of a job and forgets it.
func (r *jobResults) take(job dbus.ObjectPath) (string, bool) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	result, ended := r.results[job]
	delete(r.results, job)
	return result, ended
}
