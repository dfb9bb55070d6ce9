package engine

import (
	"context"
	"fmt"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/typeurl/v2"
	"github.com/sirupsen/logrus"
)

// ContainerdSocket is containerd's default socket.
const ContainerdSocket = "/run/containerd/containerd.sock"

// Pauses between attempts to connect, and how long one may take.
const (
	firstPause  = 100 * time.Millisecond
	longestWait = 5 * time.Second
	connectTime = 5 * time.Second
)

// ourTopic is that of the event that shows that the subscription is made.
const ourTopic = "/autofs-restore-agent/listening"

var filters = []string{
	`topic=="/tasks/create"`, `topic=="/tasks/start"`, `topic=="/tasks/exit"`, `topic=="/tasks/delete"`, `topic=="` + ourTopic + `"`,
}

// Containerd watches containerd.
//
// containerd says with the event /tasks/create whether a task comes out of a
// checkpoint, and with /tasks/start that it runs: CRIU and its action scripts
// have ended by then. Restores that happened without a connection are found by
// looking at the running tasks after each connection.
//
// The client's Subscribe returns before containerd has made the subscription.
// So after each connection Containerd publishes an event of its own and waits
// until it receives it. Only then it lists the running tasks: each restore is
// received or listed, and a start whose creation was not received is handed on
// as one that may be a restore.
type Containerd struct {
	Socket string
	Log    logrus.FieldLogger
	// State is called after each change with the reason why containerd is not
	// reachable, or nil.
	State func(err error)

	patience time.Duration // with a connection; connectTime but for tests
}

// Run watches until ctx ends. It connects again when containerd goes away.
func (w *Containerd) Run(ctx context.Context, handler Handler) {
	if w.patience == 0 {
		w.patience = connectTime
	}
	pause := firstPause
	for ctx.Err() == nil {
		started := time.Now()
		err := w.connected(ctx, handler)
		if ctx.Err() != nil {
			return
		}
		w.State(err)
		w.Log.WithField("socket", w.Socket).WithError(err).Warn("containerd is not reachable")
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
func (w *Containerd) connected(ctx context.Context, handler Handler) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c, err := client.New(w.Socket, client.WithTimeout(w.patience))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer c.Close()
	s := &session{Containerd: w, handler: handler, client: c, created: map[task]bool{}}
	received, ended := c.EventService().Subscribe(ctx, filters...)
	announcing, stop := context.WithCancel(ctx)
	defer stop()
	go s.announce(announcing)
	silence := time.NewTimer(w.patience)
	defer silence.Stop()
	for {
		select {
		case e := <-received:
			if e.Topic == ourTopic {
				if s.listening {
					continue // another agent's
				}
				s.listening = true
				stop()
				silence.Stop()
				w.State(nil)
				w.Log.WithField("socket", w.Socket).Info("connected to containerd")
				go s.look(ctx)
				continue
			}
			s.take(e)
		case err := <-ended:
			return fmt.Errorf("events: %w", err)
		case <-silence.C:
			return fmt.Errorf("events: none received within %s, not even our own", w.patience)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// task names a task by containerd's namespace and the container.
type task struct{ namespace, container string }

// session is one connection.
type session struct {
	*Containerd
	handler   Handler
	client    *client.Client
	listening bool
	// created has the tasks that were created and have not started yet, and
	// whether they are restored.
	created map[task]bool
}

// announce publishes our event until ctx ends: the first ones may come before
// the subscription.
func (s *session) announce(ctx context.Context) {
	ctx = namespaces.WithNamespace(ctx, "autofs-restore-agent")
	for ctx.Err() == nil {
		err := s.client.EventService().Publish(ctx, ourTopic, &eventsapi.NamespaceUpdate{Name: "listening"})
		if err != nil && ctx.Err() == nil {
			s.Log.WithError(err).Debug("containerd took no event")
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
		s.Log.WithField("topic", e.Topic).WithError(err).Warn("an event of containerd cannot be read")
		return
	}
	switch body := body.(type) {
	case *eventsapi.TaskCreate:
		s.created[task{e.Namespace, body.GetContainerID()}] = body.GetCheckpoint() != ""
	case *eventsapi.TaskStart:
		name := task{e.Namespace, body.GetContainerID()}
		restored, known := s.created[name]
		delete(s.created, name)
		n := Notice{
			Namespace: e.Namespace, Container: body.GetContainerID(), PID: int(body.GetPid()),
			Started: e.Timestamp,
		}
		switch {
		case restored:
			s.handler.Restored(n)
		case !known:
			s.handler.Running(n)
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
		s.Log.WithError(err).Warn("the namespaces of containerd cannot be listed")
		return
	}
	for _, name := range names {
		r, err := s.client.TaskService().List(namespaces.WithNamespace(ctx, name), &tasksapi.ListTasksRequest{})
		if err != nil {
			if ctx.Err() == nil {
				s.Log.WithField("namespace", name).WithError(err).Warn("the tasks of containerd cannot be listed")
			}
			continue
		}
		for _, t := range r.GetTasks() {
			if t.GetStatus() == tasktypes.Status_RUNNING {
				s.handler.Running(Notice{Namespace: name, Container: t.GetID(), PID: int(t.GetPid())})
			}
		}
	}
}

// PodOf returns a container's pod, by the labels that containerd keeps.
func (w *Containerd) PodOf(ctx context.Context, namespace, container string) (Pod, error) {
	c, err := client.New(w.Socket, client.WithTimeout(connectTime))
	if err != nil {
		return Pod{}, fmt.Errorf("containerd: %w", err)
	}
	defer c.Close()
	if namespace == "" {
		namespace = "k8s.io" // the kubelet's
	}
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(ctx, namespace), connectTime)
	defer cancel()
	info, err := c.ContainerService().Get(ctx, container)
	if err != nil {
		return Pod{}, fmt.Errorf("containerd: container %q: %w", container, err)
	}
	pod, ok := podFromLabels(info.Labels)
	if !ok {
		return Pod{}, fmt.Errorf("containerd: container %q: %w", container, ErrNotAPod)
	}
	return pod, nil
}
