package cure

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"

	"golang.org/x/sys/unix"
)

// awaitServed waits until the new triggers have no waiters, for servingTime at most. While a
// trigger has one, its path does not exist for this process (ENOENT).
func (h masterSpace) awaitServed(ctx context.Context, list []container.ParkedTrigger) {
	ctx, cancel := context.WithTimeout(ctx, servingTime)
	defer cancel()
	for _, t := range list {
		for ctx.Err() == nil {
			err := h.Process.InMountNamespace(ctx, func(*nsenter.Thread) error {
				var st unix.Stat_t
				return unix.Lstat(t.Path, &st)
			})
			if !errors.Is(err, unix.ENOENT) {
				break
			}
			time.Sleep(container.RetryInterval)
		}
	}
}

const (
	// storeTime is the time limit of awaitStored.
	storeTime = 20 * time.Millisecond
	// storeInterval is the pause between two checks of the daemon.
	storeInterval = 200 * time.Microsecond
)

// awaitStored waits until the daemon has stored the device and inode numbers of its new
// triggers: it never answers a request that arrives before.
//
// After the mount it opens the trigger, sets its timeout, stores the numbers and closes
// the trigger (daemon/direct.c, do_mount_autofs_direct). So the numbers are stored if the
// timeout is set and the daemon has no file open on the trigger. If timeouts are disabled,
// awaitStored waits for storeTime.
func (h masterSpace) awaitStored(ctx context.Context, list []container.ParkedTrigger) {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	for ctx.Err() == nil && !h.stored(list) {
		time.Sleep(storeInterval)
	}
}

// stored reports whether the daemon has stored the numbers of all new triggers.
func (h masterSpace) stored(list []container.ParkedTrigger) bool {
	if h.daemon == nil {
		return true // the daemon has ended
	}
	table, err := mounts.Of(h.Process)
	if err != nil {
		return false
	}
	var triggers []int // mount ids
	for _, t := range list {
		trigger := t.Successor(table)
		if trigger == nil {
			continue
		}
		if o, err := autofs.ParseOptions(trigger.VFSOptions); err != nil || o.Timeout == 0 {
			return false
		}
		triggers = append(triggers, trigger.ID)
	}
	open := container.MountsOfFiles(h.daemon.Process)
	return !slices.ContainsFunc(triggers, func(id int) bool { return open[id] })
}
