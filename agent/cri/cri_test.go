package cri

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/autofs-restore-hook/autofs-restore-hook/agent/pods"
)

// engine answers as CRI-O does, which Debian does not have.
type engine struct {
	runtime.UnimplementedRuntimeServiceServer
}

func (engine) Version(context.Context, *runtime.VersionRequest) (*runtime.VersionResponse, error) {
	return &runtime.VersionResponse{RuntimeName: "cri-o"}, nil
}

func (engine) ContainerStatus(_ context.Context, r *runtime.ContainerStatusRequest) (*runtime.ContainerStatusResponse, error) {
	switch r.GetContainerId() {
	case "c1":
		return &runtime.ContainerStatusResponse{Status: &runtime.ContainerStatus{Labels: map[string]string{
			pods.LabelNamespace: "default", pods.LabelName: "legacy-0", pods.LabelUID: "u-1", pods.LabelContainer: "main",
		}}}, nil
	case "c2":
		return &runtime.ContainerStatusResponse{}, nil
	}
	return nil, status.Error(codes.NotFound, "no such container")
}

func serve(t *testing.T, socket string) *grpc.Server {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	runtime.RegisterRuntimeServiceServer(s, engine{})
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return s
}

func TestClient(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "crio.sock")
	c, err := New(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := c.Reachable(t.Context()); err == nil {
		t.Error("an engine that is not there is reachable")
	}
	s := serve(t, socket)
	reached := func() error {
		var err error
		for range 100 {
			if err = c.Reachable(t.Context()); err == nil {
				return nil
			}
			time.Sleep(50 * time.Millisecond)
		}
		return err
	}
	if err := reached(); err != nil {
		t.Fatal(err)
	}
	pod, err := c.PodOf(t.Context(), "", "c1")
	if want := (pods.Pod{Namespace: "default", Name: "legacy-0", UID: "u-1", Container: "main"}); pod != want || err != nil {
		t.Errorf("%+v, %v, want %+v", pod, err, want)
	}
	if _, err := c.PodOf(t.Context(), "", "c2"); !errors.Is(err, ErrNotAPod) {
		t.Errorf("a container without labels: %v", err)
	}
	if _, err := c.PodOf(t.Context(), "", "c3"); status.Code(err) != codes.NotFound {
		t.Errorf("a container that is not there: %v", err)
	}
	s.Stop()
	if err := c.Reachable(t.Context()); err == nil {
		t.Error("an engine that went away is reachable")
	}
	serve(t, socket)
	if err := reached(); err != nil {
		t.Errorf("not reachable after a restart: %v", err)
	}
}

func TestWatch(t *testing.T) {
	c, err := New(filepath.Join(t.TempDir(), "crio.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	c.Watch(ctx, time.Millisecond, func(err error) {
		if calls++; err == nil {
			t.Error("reachable")
		}
		if calls == 3 {
			cancel()
		}
	})
	if calls != 3 {
		t.Errorf("%d calls", calls)
	}
}
