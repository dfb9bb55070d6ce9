package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/agent/host"
	"github.com/autofs-restore-hook/autofs-restore-hook/install"
	"github.com/autofs-restore-hook/autofs-restore-hook/manifests"
)

// maxFile bounds the files of the host that are read, in bytes.
const maxFile = 16 << 20

var (
	errNotInstalled = errors.New("the hook is not installed on the host yet")
	errOther        = errors.New("another version is installed on the host")
)

// installer keeps the hook installed on the host. The light binary does it
// itself, run with the host's view: so no folder of the host has to be mounted,
// and CRIU's version is the host's.
type installer struct {
	*agent
	failed atomic.Pointer[error]
}

// keepInstalled installs until ctx ends. The returned function waits for that,
// and removes what was installed if that is wanted.
func (a *agent) keepInstalled(ctx context.Context) (check func(context.Context) error, end func()) {
	if !a.install {
		return func(context.Context) error { return nil }, func() {}
	}
	i := &installer{agent: a}
	i.failed.Store(&errNotInstalled)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			i.once(ctx)
			select {
			case <-time.After(a.installEvery):
			case <-ctx.Done():
			}
		}
	}()
	return i.check, func() {
		<-ended
		if a.uninstall {
			i.remove(context.WithoutCancel(ctx))
		}
	}
}

func (i *installer) once(ctx context.Context) {
	var err error
	if !i.foreign() {
		err = i.call(ctx, "install")
	}
	if err == nil {
		err = i.check(ctx)
	}
	if before := i.failed.Swap(&err); err != nil && ctx.Err() == nil && (*before == nil || (*before).Error() != err.Error()) {
		i.log.Error("the hook is not installed on the host", "error", err)
	} else if err == nil && *before != nil {
		i.log.Info("the hook is installed on the host", "program", i.path())
	}
}

// foreign reports whether a package has put a version of the program on the host.
// It stays, and CRIU goes on calling it: the agent and the package would replace
// each other's for ever.
func (i *installer) foreign() bool {
	there, err := host.ReadFile(i.path(), maxFile)
	if err != nil {
		return false
	}
	recorded, err := host.ReadFile(install.RecordFile, maxFile)
	return (err == nil || errors.Is(err, fs.ErrNotExist)) && install.IsForeign(there, recorded)
}

func (i *installer) remove(ctx context.Context) {
	if i.foreign() {
		i.log.Info("the hook stays on the host: a package has put it there", "program", i.path())
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := i.call(ctx, "uninstall"); err != nil {
		i.log.Error("the hook could not be removed from the host", "error", err)
		return
	}
	i.log.Info("the hook was removed from the host")
}

// call runs a command of the light binary on the host.
func (i *installer) call(ctx context.Context, verb string) error {
	r, err := i.program.Run(ctx, verb, "--prefix", i.prefix)
	if err != nil {
		return err
	}
	if r.Status != 0 {
		text := strings.TrimSpace(r.Stderr)
		return fmt.Errorf("%s: exit status %d: %s", verb, r.Status, text[:min(len(text), 1000)])
	}
	return nil
}

func (i *installer) path() string {
	return strings.TrimSuffix(i.prefix, "/") + "/libexec/oci/hooks.d/autofs-restore-hook"
}

// check looks at the host: the program is there, is the one of our image, and
// CRIU calls it.
func (i *installer) check(context.Context) error {
	there, err := host.ReadFile(i.path(), maxFile)
	if err != nil {
		if failed := *i.failed.Load(); failed != nil {
			return failed
		}
		return err
	}
	if !i.foreign() {
		ours, err := i.program.Content()
		if err != nil {
			return err
		}
		if !bytes.Equal(there, ours) {
			return fmt.Errorf("%w: %s", errOther, i.path())
		}
	}
	text, err := host.ReadFile(install.CRIUFile, maxFile)
	if err != nil {
		return err
	}
	scripts := install.ActionScripts(string(text))
	if slices.Contains(scripts, i.path()) {
		return nil
	}
	script, err := manifests.ActionScript(i.path())
	if err != nil {
		return err
	}
	if !slices.Contains(scripts, script.Name) {
		return fmt.Errorf("%s does not name %s", install.CRIUFile, script.Name)
	}
	_, err = host.ReadFile(script.Name, maxFile)
	return err
}
