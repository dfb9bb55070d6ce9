package cure

import (
	"context"
	"errors"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
	"golang.org/x/sys/unix"
)

// awaitServed waits, for servingTime, until no process waits on the new triggers: until
// then their paths lead nowhere for us (ENOENT).
func (h daemonSpace) awaitServed(ctx context.Context, list []container.ParkedTrigger) {
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

// recordTime bounds the wait of awaitRecorded.
const recordTime = 20 * time.Millisecond

// awaitRecorded waits until the daemon has recorded the numbers of the triggers that it
// has mounted: it never answers a request that comes before.
//
// After the mount it opens the trigger, sets its timeout, records the numbers and closes
// it (daemon/direct.c, do_mount_autofs_direct). So a trigger is recorded if its timeout is
// set and the daemon has no file open on it. Where timeouts are disabled, only time helps.
func (h daemonSpace) awaitRecorded(ctx context.Context, list []container.ParkedTrigger) {
	ctx, cancel := context.WithTimeout(ctx, recordTime)
	defer cancel()
	for ctx.Err() == nil && !h.recorded(list) {
		time.Sleep(recordInterval)
	}
}

// recordInterval is the pause between two looks at the daemon.
const recordInterval = 200 * time.Microsecond

func (h daemonSpace) recorded(list []container.ParkedTrigger) bool {
	if h.daemon == nil {
		return true // no process will answer
	}
	table, err := mounts.Of(h.Process)
	if err != nil {
		return false
	}
	triggers := map[int]bool{} // by mount id
	for _, t := range list {
		trigger := t.Successor(table)
		if trigger == nil {
			continue
		}
		if o, err := autofs.ParseOptions(trigger.VFSOptions); err != nil || o.Timeout == 0 {
			return false
		}
		triggers[trigger.ID] = true
	}
	return !container.HasFileOn(h.daemon.Process, triggers)
}
