package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CRIOSocket is CRI-O's default socket.
const CRIOSocket = "/run/crio/crio.sock"

const (
	// callTime bounds one call.
	callTime = 3 * time.Second
	// listEvery is the pause between two lists, as the kubelet's, and
	// listSoon the one while a container is about to run.
	listEvery = time.Second
	listSoon  = 50 * time.Millisecond
	// startTime is how long a container that does not run yet is expected to
	// run soon: restoring much memory takes time.
	startTime = 5 * time.Minute
)

// CRIO watches CRI-O through the Container Runtime Interface.
//
// CRI-O announces no restore: GetContainerEvents ends at once by default
// (enable_pod_events = false), and when it is enabled CRI-O sends neither a
// created nor a started event for a container that it restores
// (server/container_create.go and container_start.go, main at f954a17). What
// shows a restore is ContainerStatus with verbose set: its info has the first
// process ("pid") and whether CRI-O restored the container ("restored", since
// 1.27; kept in memory only, false after CRI-O was restarted).
//
// So CRIO lists the containers every second, and asks for the status of each
// one that is new. A container that is listed and does not run yet (CRI-O lists
// a container to be restored in the state CONTAINER_UNKNOWN) makes it list more
// often, and so does conmon: before it calls the OCI runtime it makes an entry
// for the container in container_attach_socket_dir, by default the folder of
// CRI-O's socket.
type CRIO struct {
	Socket string
	Log    logrus.FieldLogger
	// State is called after each list with its error, or nil.
	State func(error)

	connection *grpc.ClientConn
	runtime    runtime.RuntimeServiceClient
	known      map[string]container
	missed     bool // containers may have been restored before the next list
}

// reconnect has gRPC connect again as soon as CRI-O is back.
var reconnect = backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: listEvery}

// container is what CRIO remembers of a container between two lists.
type container struct {
	first time.Time // when it was listed first
	told  bool      // the handler knows
}

// NewCRIO returns a watcher of the CRI-O at a socket. It connects when it runs,
// and again after CRI-O was restarted.
func NewCRIO(socket string, log logrus.FieldLogger, state func(error)) (*CRIO, error) {
	c, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: callTime}))
	if err != nil {
		return nil, fmt.Errorf("CRI-O at %s: %w", socket, err)
	}
	return &CRIO{
		Socket: socket, Log: log, State: state, connection: c, runtime: runtime.NewRuntimeServiceClient(c),
		known: map[string]container{}, missed: true,
	}, nil
}

// Close ends the connection.
func (w *CRIO) Close() error { return w.connection.Close() }

// Run watches until ctx ends.
func (w *CRIO) Run(ctx context.Context, handler Handler) {
	starts := w.watchStarts()
	if starts != nil {
		defer starts.Close()
	} else {
		starts = &fsnotify.Watcher{} // nil channels
	}
	failed := ""
	for {
		soon, err := w.list(ctx, handler)
		if ctx.Err() != nil {
			return
		}
		w.State(err)
		switch {
		case err == nil && failed != "":
			w.Log.WithField("socket", w.Socket).Info("connected to CRI-O")
			failed = ""
		case err != nil && err.Error() != failed:
			w.Log.WithField("socket", w.Socket).WithError(err).Warn("CRI-O is not reachable")
			failed = err.Error()
		}
		w.missed = err != nil
		pause := listEvery
		if soon {
			pause = listSoon
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-starts.Events:
		case err := <-starts.Errors:
			w.Log.WithError(err).Debug("watch conmon's attach sockets")
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// watchStarts watches for conmon's attach sockets. Without the watch restores
// are seen within a second.
func (w *CRIO) watchStarts() *fsnotify.Watcher {
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		if err = watcher.Add(filepath.Dir(w.Socket)); err == nil {
			return watcher
		}
		watcher.Close()
	}
	w.Log.WithError(err).Warn("conmon's attach sockets are not watched: restores are seen up to a second later")
	return nil
}

// list lists the containers once, and reports whether one is about to run.
func (w *CRIO) list(ctx context.Context, handler Handler) (soon bool, err error) {
	call, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	r, err := w.runtime.ListContainers(call, &runtime.ListContainersRequest{})
	if err != nil {
		return false, fmt.Errorf("list containers: %w", err)
	}
	listed := make(map[string]container, len(r.GetContainers()))
	for _, c := range r.GetContainers() {
		id := c.GetId()
		k, ok := w.known[id]
		if !ok {
			k.first = time.Now()
		}
		if w.missed {
			k.told = false // it may have been restored again
		}
		switch c.GetState() {
		case runtime.ContainerState_CONTAINER_RUNNING:
			if !k.told {
				if k.told, err = w.tell(ctx, id, handler); err != nil {
					return false, err
				}
			}
		case runtime.ContainerState_CONTAINER_EXITED:
			k.told = true
		default:
		}
		soon = soon || !k.told && time.Since(k.first) < startTime
		listed[id] = k
	}
	w.known = listed
	return soon, nil
}

// tell asks for a running container's status and tells the handler. It is false
// if the status does not name the container's process yet.
func (w *CRIO) tell(ctx context.Context, id string, handler Handler) (bool, error) {
	call, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	r, err := w.runtime.ContainerStatus(call, &runtime.ContainerStatusRequest{ContainerId: id, Verbose: true})
	switch status.Code(err) {
	case codes.OK:
	case codes.NotFound:
		return true, nil // removed since it was listed
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return false, fmt.Errorf("status of container %q: %w", id, err)
	default: // of this container, not of CRI-O
		w.Log.WithField("container", id).WithError(err).Warn("CRI-O gives no status of the container: a restore of it is not seen")
		return true, nil
	}
	// CRI-O: server/container_status.go, containerInfo.
	var info struct {
		PID      int  `json:"pid"`
		Restored bool `json:"restored"`
	}
	if err := json.Unmarshal([]byte(r.GetInfo()["info"]), &info); err != nil {
		w.Log.WithField("container", id).WithError(err).Warn("the info in the container's status is not CRI-O's: a restore of it is not seen")
		return true, nil
	}
	if info.PID <= 0 {
		return false, nil
	}
	n := Notice{Container: id, PID: info.PID}
	if w.missed || !info.Restored {
		handler.Running(n)
		return true, nil
	}
	// CRI-O sets the state before the time.
	if n.Started = time.Unix(0, r.GetStatus().GetStartedAt()); n.Started.Unix() <= 0 {
		n.Started = time.Now()
	}
	handler.Restored(n)
	return true, nil
}

// PodOf returns a container's pod.
func (w *CRIO) PodOf(ctx context.Context, _, container string) (Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	r, err := w.runtime.ContainerStatus(ctx, &runtime.ContainerStatusRequest{ContainerId: container})
	if err != nil {
		return Pod{}, fmt.Errorf("CRI-O: container %q: %w", container, err)
	}
	pod, ok := podFromLabels(r.GetStatus().GetLabels())
	if !ok {
		return Pod{}, fmt.Errorf("CRI-O: container %q: %w", container, ErrNotAPod)
	}
	return pod, nil
}
