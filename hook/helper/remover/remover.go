// Package remover removes the control groups that were created for a restore if that
// fails: crun, podman and criu leave a container's groups behind then. A remover is a
// helper process that waits for the end of CRIU. If the container's first process is
// alive then, the groups belong to the container and stay.
package remover

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/cgroup"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/helper/spawn"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Verb is the hidden command with which the program runs as a remover.
const Verb = "remove-groups"

// The remover's descriptors: the container's own group, and the list of groups.
const (
	ownFile  = spawn.FirstFile
	listFile = spawn.FirstFile + 1
)

const (
	// lifetime bounds how long a remover waits for CRIU.
	lifetime = 10 * time.Minute
	// endTime is how long the killed processes of a failed restore may take to end.
	endTime = 5 * time.Second
	// maxList bounds the list of groups, in bytes.
	maxList = cgroup.MaxGroups * (unix.PathMax + 1)
)

// Start starts a remover of the groups, relative to own, for the restore of a
// container by criu. It moves to the control groups of model, if there is one.
func Start(criu, init, model *nsenter.Process, own *os.File, created []string) error {
	list, err := listOf(created)
	if err != nil {
		return fmt.Errorf("list of control groups: %w", err)
	}
	defer list.Close()
	p, err := spawn.StartSelf([]string{Verb, criu.Identity(), init.Identity()}, []*os.File{own, list}, model, 1<<unix.CAP_DAC_OVERRIDE)
	if err != nil {
		err = fmt.Errorf("start the process that removes control groups if the restore fails: %w", err)
	}
	if p != nil {
		p.Close()
	}
	return err
}

// listOf writes the list to a memfd: it may be longer than the limit of arguments.
func listOf(created []string) (*os.File, error) {
	f, err := sys.Memfd("control-groups", 0)
	if err != nil {
		return nil, err
	}
	_, err = f.WriteString(strings.Join(created, "\n"))
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Run runs a remover with its arguments.
func Run(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("%s: %d arguments: want the identities of CRIU and of the container's first process", Verb, len(args))
	}
	list, err := io.ReadAll(io.LimitReader(os.NewFile(listFile, "list"), maxList))
	if err != nil {
		return fmt.Errorf("%s: %w", Verb, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), lifetime)
	defer cancel()
	criu, err := open(args[0])
	if err == nil {
		defer criu.Close()
		err = criu.WaitEnd(ctx)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", Verb, err)
	}
	init, err := open(args[1])
	switch {
	case err == nil:
		defer init.Close()
		// CRIU kills the processes before it ends.
		if !init.Ended() && !init.Dying() {
			return nil
		}
		ctx, cancel := context.WithTimeout(context.Background(), endTime)
		defer cancel()
		if err := init.WaitEnd(ctx); err != nil {
			return fmt.Errorf("%s: %w", Verb, err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: %w", Verb, err)
	}
	return remove(os.NewFile(ownFile, "group"), string(bytes.TrimSpace(list)))
}

// remove retries: a group stays busy shortly after its last process ended, and the
// container engine may be removing groups too.
func remove(own *os.File, list string) (err error) {
	for range 50 {
		if err = cgroup.Remove(own, strings.Split(list, "\n")); err == nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

// open opens the process with the given identity.
func open(identity string) (*nsenter.Process, error) {
	pid, start, err := nsenter.ParseIdentity(identity)
	if err != nil {
		return nil, err
	}
	return nsenter.OpenIdentity(pid, start)
}
