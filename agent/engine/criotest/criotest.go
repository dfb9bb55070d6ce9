// Package criotest provides a CRI server that answers as CRI-O does, for tests:
// Debian has no CRI-O. It runs no containers; the test says what happens to them.
//
// What it imitates was read in CRI-O's main at f954a17 (21 August 2026):
//
//   - a container that will be restored is listed in the state CONTAINER_UNKNOWN
//     until its restore has ended (internal/oci/container.go, CRIContainer);
//   - conmon makes an entry in the folder of the attach sockets before it calls
//     the OCI runtime (conmon: src/conn_sock.c, setup_attach_socket);
//   - no event is sent for a restore, and by default none for anything
//     (server/container_events.go);
//   - ContainerStatus tells "pid" and "restored" in the verbose info, and has
//     forgotten "restored" after a restart (server/container_status.go).
package criotest

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Server is a CRI server.
type Server struct {
	socket string

	mu         sync.Mutex
	grpc       *grpc.Server
	containers map[string]*container
	lists      int
}

type container struct {
	labels   map[string]string
	state    runtime.ContainerState
	pid      int
	restored bool
	started  time.Time
	spoiled  bool
}

// Start starts a server. It ends with the test.
func Start(t testing.TB, socket string) *Server {
	t.Helper()
	s := &Server{socket: socket, containers: map[string]*container{}}
	s.Listen(t)
	t.Cleanup(s.Stop)
	return s
}

// Listen starts the server again after Stop.
func (s *Server) Listen(t testing.TB) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grpc = grpc.NewServer()
	runtime.RegisterRuntimeServiceServer(s.grpc, service{s: s})
	go func(g *grpc.Server) { _ = g.Serve(l) }(s.grpc) // ends with Stop
}

// Stop stops the server, as at a restart of CRI-O: containers go on.
func (s *Server) Stop() {
	s.mu.Lock()
	g := s.grpc
	for _, c := range s.containers {
		c.restored = false
	}
	s.mu.Unlock()
	g.Stop()
}

// Import creates a container from a checkpoint, as CreateContainer does.
func (s *Server) Import(id string, labels map[string]string) {
	s.set(id, &container{labels: labels, state: runtime.ContainerState_CONTAINER_UNKNOWN, restored: true})
}

// Create creates a container from an image without a checkpoint.
func (s *Server) Create(t testing.TB, id string, labels map[string]string) {
	t.Helper()
	s.Conmon(t, id)
	s.set(id, &container{labels: labels, state: runtime.ContainerState_CONTAINER_CREATED})
}

// Conmon does what conmon does before it calls the OCI runtime.
func (s *Server) Conmon(t testing.TB, id string) {
	t.Helper()
	link := filepath.Join(filepath.Dir(s.socket), id)
	if err := os.Symlink("/run/containers/storage/overlay-containers/"+id+"/userdata", link); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(link) })
}

// Run has a container run.
func (s *Server) Run(id string, pid int) {
	s.change(id, func(c *container) {
		c.state, c.pid, c.started = runtime.ContainerState_CONTAINER_RUNNING, pid, time.Now()
	})
}

// Exit ends a container.
func (s *Server) Exit(id string) {
	s.change(id, func(c *container) { c.state = runtime.ContainerState_CONTAINER_EXITED })
}

// Spoil has the status of a container fail.
func (s *Server) Spoil(id string) {
	s.change(id, func(c *container) { c.spoiled = true })
}

// Remove removes a container.
func (s *Server) Remove(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.containers, id)
}

// Lists is how often the containers were listed.
func (s *Server) Lists() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lists
}

func (s *Server) set(id string, c *container) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.containers[id] = c
}

func (s *Server) change(id string, f func(*container)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s.containers[id])
}

// service is the CRI of a Server.
type service struct {
	runtime.UnimplementedRuntimeServiceServer
	s *Server
}

// ListContainers lists all containers, whatever the filter.
func (v service) ListContainers(context.Context, *runtime.ListContainersRequest) (*runtime.ListContainersResponse, error) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	v.s.lists++
	r := &runtime.ListContainersResponse{}
	for id, c := range v.s.containers {
		r.Containers = append(r.Containers, &runtime.Container{Id: id, State: c.state, Labels: c.labels})
	}
	return r, nil
}

// ContainerStatus answers with the verbose info of CRI-O.
func (v service) ContainerStatus(_ context.Context, r *runtime.ContainerStatusRequest) (*runtime.ContainerStatusResponse, error) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	c := v.s.containers[r.GetContainerId()]
	if c == nil {
		return nil, status.Error(codes.NotFound, fmt.Sprintf("could not find container %q", r.GetContainerId()))
	}
	if c.spoiled {
		return nil, status.Error(codes.Unknown, "creating container info: metadata is lost")
	}
	response := &runtime.ContainerStatusResponse{Status: &runtime.ContainerStatus{Id: r.GetContainerId(), State: c.state, Labels: c.labels}}
	if c.state == runtime.ContainerState_CONTAINER_RUNNING {
		response.Status.StartedAt = c.started.UnixNano()
	}
	if r.GetVerbose() {
		info, err := json.Marshal(map[string]any{
			"sandboxID": "sandbox", "pid": c.pid, "runtimeSpec": map[string]any{"ociVersion": "1.2.1"}, "privileged": false,
			"checkpointedAt": time.Time{}, "restored": c.restored,
		})
		if err != nil {
			return nil, err
		}
		response.Info = map[string]string{"info": string(info)}
	}
	return response, nil
}

// GetContainerEvents ends at once: enable_pod_events is false.
func (service) GetContainerEvents(*runtime.GetEventsRequest, runtime.RuntimeService_GetContainerEventsServer) error {
	return nil
}
