// Package cri asks a container engine through the Container Runtime Interface,
// as the kubelet does: whether it is there, and whose container it is.
package cri

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/autofs-restore-hook/autofs-restore-hook/agent/pods"
)

const callTime = 3 * time.Second

// ErrNotAPod means that a container is none of a pod's.
var ErrNotAPod = errors.New("the engine does not say that it is a pod's container")

// Client speaks to an engine's CRI socket. It connects when it is used, and
// again after the engine was restarted.
type Client struct {
	connection *grpc.ClientConn
	runtime    runtime.RuntimeServiceClient
}

// New makes a client for the socket at a path.
func New(socket string) (*Client, error) {
	c, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("CRI at %s: %w", socket, err)
	}
	return &Client{c, runtime.NewRuntimeServiceClient(c)}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.connection.Close() }

// Reachable is nil if the engine answers.
func (c *Client) Reachable(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if _, err := c.runtime.Version(ctx, &runtime.VersionRequest{}); err != nil {
		return fmt.Errorf("CRI: %w", err)
	}
	return nil
}

// PodOf names the pod of a container.
func (c *Client) PodOf(ctx context.Context, _, container string) (pods.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	r, err := c.runtime.ContainerStatus(ctx, &runtime.ContainerStatusRequest{ContainerId: container})
	if err != nil {
		return pods.Pod{}, fmt.Errorf("CRI: container %q: %w", container, err)
	}
	pod, ok := pods.FromLabels(r.GetStatus().GetLabels())
	if !ok {
		return pods.Pod{}, fmt.Errorf("CRI: container %q: %w", container, ErrNotAPod)
	}
	return pod, nil
}

// Watch tells every few seconds whether the engine answers, until ctx ends.
func (c *Client) Watch(ctx context.Context, every time.Duration, state func(error)) {
	for {
		state(c.Reachable(ctx))
		select {
		case <-time.After(every):
		case <-ctx.Done():
			return
		}
	}
}
