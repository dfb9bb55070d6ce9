// Command containerd-task drives a containerd with its own Go client, as the
// laboratory drives runc with runc's command:
//
//	containerd-task [flags] start ID        start a container from --spec
//	containerd-task [flags] checkpoint ID   dump it to --images and end it
//	containerd-task [flags] restore ID      restore it from --images
//	containerd-task [flags] kill ID         end it; it can still be restored
//	containerd-task [flags] remove ID       remove it
//
// start and restore print the number of the container's PID 1.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"syscall"

	"github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

var (
	address = flag.String("address", "/run/containerd/containerd.sock", "the daemon's `socket`")
	spec    = flag.String("spec", "", "OCI specification, a `file`")
	images  = flag.String("images", "", "`folder` of CRIU's images")
	work    = flag.String("work", "", "`folder` of CRIU's logs")
)

func main() {
	flag.Parse()
	if flag.NArg() != 2 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(flag.Arg(0), flag.Arg(1)); err != nil {
		fmt.Fprintf(os.Stderr, "containerd-task %s: %v\n", flag.Arg(0), err)
		os.Exit(1)
	}
}

func run(verb, id string) error {
	client, err := containerd.New(*address, containerd.WithDefaultNamespace("laboratory"))
	if err != nil {
		return err
	}
	defer client.Close()
	ctx := context.Background()
	if verb == "start" {
		return start(ctx, client, id)
	}
	container, err := client.LoadContainer(ctx, id)
	if err != nil {
		return err
	}
	switch verb {
	case "checkpoint":
		return checkpoint(ctx, container)
	case "restore":
		return startTask(ctx, container, containerd.WithRestoreImagePath(*images), containerd.WithRestoreWorkPath(*work))
	case "kill":
		return deleteTask(ctx, container)
	case "remove":
		return errors.Join(deleteTask(ctx, container), container.Delete(ctx))
	}
	return errors.New("no such verb")
}

func start(ctx context.Context, client *containerd.Client, id string) error {
	text, err := os.ReadFile(*spec)
	if err != nil {
		return err
	}
	var s specs.Spec
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("%s: %w", *spec, err)
	}
	container, err := client.NewContainer(ctx, id, containerd.WithSpec(&s))
	if err != nil {
		return err
	}
	return startTask(ctx, container)
}

func startTask(ctx context.Context, container containerd.Container, opts ...containerd.NewTaskOpts) error {
	task, err := container.NewTask(ctx, cio.NullIO, opts...)
	if err != nil {
		return err
	}
	if err := task.Start(ctx); err != nil {
		_, deleteErr := task.Delete(ctx, containerd.WithProcessKill)
		return errors.Join(err, deleteErr)
	}
	fmt.Println(task.Pid())
	return nil
}

func checkpoint(ctx context.Context, container containerd.Container) error {
	task, err := container.Task(ctx, nil)
	if err != nil {
		return err
	}
	ended, err := task.Wait(ctx)
	if err != nil {
		return err
	}
	_, err = task.Checkpoint(ctx, func(info *containerd.CheckpointTaskInfo) error {
		info.Options = &options.CheckpointOptions{
			Exit: true, OpenTcp: true, FileLocks: true, ImagePath: *images, WorkPath: *work,
		}
		return nil
	})
	if err != nil {
		return err
	}
	<-ended
	_, err = task.Delete(ctx)
	return err
}

// deleteTask ends a container's task. None is no error.
func deleteTask(ctx context.Context, container containerd.Container) error {
	task, err := container.Task(ctx, nil)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := task.Kill(ctx, syscall.SIGKILL, containerd.WithKillAll); err != nil && !errdefs.IsNotFound(err) && !errdefs.IsFailedPrecondition(err) {
		return err
	}
	_, err = task.Delete(ctx, containerd.WithProcessKill)
	return err
}
