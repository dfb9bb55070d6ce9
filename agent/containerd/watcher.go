// Package containerd watches containerd for restored containers.
//
// containerd says with the event /tasks/create whether a task comes out of a
// checkpoint, and with /tasks/start that it runs: CRIU and its action scripts
// have ended by then. What happened while nobody listened is found by looking
// at the running tasks after each connection.
//
// # Nothing falls between
//
// The client's Subscribe returns before containerd has made the subscription.
// So after each connection the watcher publishes an event of its own and waits
// until it hears it. Only then it lists the running tasks: a restore is heard of
// or seen, and a start whose creation was not heard of is handed on as one that
// may be a restore.
package containerd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/typeurl/v2"

	"github.com/autofs-restore-hook/autofs-restore-hook/agent/pods"
	"github.com/autofs-restore-hook/autofs-restore-hook/agent/restores"
)

// Socket is where containerd listens unless somebody wants it elsewhere.
const Socket = "/run/containerd/containerd.sock"

// Pauses between attempts to connect, and how long one may take.
const (
	firstPause  = 100 * time.Millisecond
	longestWait = 5 * time.Second
	connectTime = 5 * time.Second
)

// ourTopic is that of the event with which the watcher hears itself.
const ourTopic = "/autofs-restore-agent/listening"

var filters = []string{
	`topic=="/tasks/create"`, `topic=="/tasks/start"`, `topic=="/tasks/exit"`, `topic=="/tasks/delete"`, `topic=="` + ourTopic + `"`,
}

// ErrNotAPod means that a container is none of a pod's.
var ErrNotAPod = errors.New("its labels name no pod")

// Handler is told of tasks; it must not wait.
type Handler interface {
	// Restored is told of each restored task when it runs.
	Restored(restores.Notice)
	// Running is told of running tasks that may have been restored.
	Running(restores.Notice)
}

// Watcher watches one containerd.
type Watcher struct {
	Socket  string
	Handler Handler
	Log     *slog.Logger
	// State is told after each change whether containerd is reachable.
	State func(err error)

	patience time.Duration // with a connection; connectTime but for tests
}

// Run watches until ctx ends. It connects again when containerd goes away.
func (w *Watcher) Run(ctx context.Context) {
	if w.patience == 0 {
		w.patience = connectTime
	}
	pause := firstPause
	for ctx.Err() == nil {
		started := time.Now()
		err := w.connected(ctx)
		if ctx.Err() != nil {
			return
		}
		w.State(err)
		w.Log.Warn("containerd is not reachable", "socket", w.Socket, "error", err)
		if time.Since(started) > longestWait {
			pause = firstPause // it was there for a while
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause = min(2*pause, longestWait)
	}
}

// connected watches for as long as one connection lives.
func (w *Watcher) connected(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c, err := client.New(w.Socket, client.WithTimeout(w.patience))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer c.Close()
	s := &session{Watcher: w, client: c, created: map[task]bool{}}
	heard, ended := c.EventService().Subscribe(ctx, filters...)
	announcing, stop := context.WithCancel(ctx)
	defer stop()
	go s.announce(announcing)
	silence := time.NewTimer(w.patience)
	defer silence.Stop()
	for {
		select {
		case e := <-heard:
			if e.Topic == ourTopic {
				if s.listening {
					continue // another agent's
				}
				s.listening = true
				stop()
				silence.Stop()
				w.State(nil)
				w.Log.Info("listening to containerd", "socket", w.Socket)
				go s.look(ctx)
				continue
			}
			s.take(e)
		case err := <-ended:
			return fmt.Errorf("events: %w", err)
		case <-silence.C:
			return fmt.Errorf("events: none heard within %s, not even our own", w.patience)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// task names a task by containerd's namespace and the container.
type task struct{ namespace, container string }

// session is one connection.
type session struct {
	*Watcher
	client    *client.Client
	listening bool
	// created are the tasks whose creation was heard of and that did not start
	// yet, and whether they are restored.
	created map[task]bool
}

// announce publishes our event until ctx ends: the first ones may come before
// the subscription.
func (s *session) announce(ctx context.Context) {
	ctx = namespaces.WithNamespace(ctx, "autofs-restore-agent")
	for ctx.Err() == nil {
		err := s.client.EventService().Publish(ctx, ourTopic, &eventsapi.NamespaceUpdate{Name: "listening"})
		if err != nil && ctx.Err() == nil {
			s.Log.Debug("containerd took no event", "error", err)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// take handles one event.
func (s *session) take(e *events.Envelope) {
	body, err := typeurl.UnmarshalAny(e.Event)
	if err != nil {
		s.Log.Warn("an event of containerd cannot be read", "topic", e.Topic, "error", err)
		return
	}
	switch body := body.(type) {
	case *eventsapi.TaskCreate:
		s.created[task{e.Namespace, body.GetContainerID()}] = body.GetCheckpoint() != ""
	case *eventsapi.TaskStart:
		name := task{e.Namespace, body.GetContainerID()}
		restored, known := s.created[name]
		delete(s.created, name)
		n := restores.Notice{
			Namespace: e.Namespace, Container: body.GetContainerID(), PID: int(body.GetPid()),
			Started: e.Timestamp,
		}
		switch {
		case restored:
			s.Handler.Restored(n)
		case !known:
			s.Handler.Running(n)
		}
	case *eventsapi.TaskExit:
		if body.GetID() == body.GetContainerID() {
			delete(s.created, task{e.Namespace, body.GetContainerID()})
		}
	case *eventsapi.TaskDelete:
		delete(s.created, task{e.Namespace, body.GetContainerID()})
	}
}

// look hands all running tasks on, of all namespaces.
func (s *session) look(ctx context.Context) {
	names, err := s.client.NamespaceService().List(ctx)
	if err != nil {
		s.Log.Warn("the namespaces of containerd cannot be listed", "error", err)
		return
	}
	for _, name := range names {
		r, err := s.client.TaskService().List(namespaces.WithNamespace(ctx, name), &tasksapi.ListTasksRequest{})
		if err != nil {
			if ctx.Err() == nil {
				s.Log.Warn("the tasks of containerd cannot be listed", "namespace", name, "error", err)
			}
			continue
		}
		for _, t := range r.GetTasks() {
			if t.GetStatus() == tasktypes.Status_RUNNING {
				s.Handler.Running(restores.Notice{Namespace: name, Container: t.GetID(), PID: int(t.GetPid())})
			}
		}
	}
}

// PodOf names the pod of a container, by the labels that the engine keeps.
func PodOf(ctx context.Context, socket, namespace, container string) (pods.Pod, error) {
	c, err := client.New(socket, client.WithTimeout(connectTime))
	if err != nil {
		return pods.Pod{}, fmt.Errorf("containerd: %w", err)
	}
	defer c.Close()
	if namespace == "" {
		namespace = "k8s.io" // the kubelet's
	}
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(ctx, namespace), connectTime)
	defer cancel()
	info, err := c.ContainerService().Get(ctx, container)
	if err != nil {
		return pods.Pod{}, fmt.Errorf("containerd: container %q: %w", container, err)
	}
	pod, ok := pods.FromLabels(info.Labels)
	if !ok {
		return pods.Pod{}, fmt.Errorf("containerd: container %q: %w", container, ErrNotAPod)
	}
	return pod, nil
}
