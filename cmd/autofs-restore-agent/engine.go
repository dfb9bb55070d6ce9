package main

import (
	"context"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/agent/containerd"
	"github.com/autofs-restore-hook/autofs-restore-hook/agent/cri"
	"github.com/autofs-restore-hook/autofs-restore-hook/agent/pods"
	"github.com/autofs-restore-hook/autofs-restore-hook/agent/restores"
)

// askEvery is how often CRI-O is asked whether it is there.
const askEvery = 10 * time.Second

// engine is what the agent does with a container engine.
type engine struct {
	// watch tells a.keeper of restores and a.engineState of the engine until ctx
	// ends.
	watch func(ctx context.Context, keeper *restores.Keeper)
	podOf func(ctx context.Context, namespace, container string) (pods.Pod, error)
}

func (a *agent) newEngine() (engine, error) {
	if a.engine == engineContainerd {
		return engine{
			watch: func(ctx context.Context, keeper *restores.Keeper) {
				w := containerd.Watcher{Socket: a.socket, Handler: keeper, Log: a.log, State: a.engineState}
				w.Run(ctx)
			},
			podOf: func(ctx context.Context, namespace, container string) (pods.Pod, error) {
				return containerd.PodOf(ctx, a.socket, namespace, container)
			},
		}, nil
	}
	// CRI-O tells nobody of a restore: what shows it are the reports of the hook
	// that is installed.
	client, err := cri.New(a.socket)
	if err != nil {
		return engine{}, err
	}
	return engine{
		watch: func(ctx context.Context, _ *restores.Keeper) { client.Watch(ctx, askEvery, a.engineState) },
		podOf: client.PodOf,
	}, nil
}
