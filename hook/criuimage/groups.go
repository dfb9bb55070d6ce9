//go:build linux

package criuimage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// GroupMount is a mount of the cgroup v2 hierarchy in a checkpoint.
type GroupMount struct {
	// MountPoint is absolute and clean, within the root of its mount namespace.
	MountPoint string
	// Root is the group at its root, seen by the CRIU that made the checkpoint: the
	// container's own group, or "/" without a cgroup namespace.
	Root string
}

const fstypeCgroup2 = 23 // enum fstype of images/mnt.proto

// Watched holds the inotify watches of an image directory, with what interprets them, and
// its timers.
type Watched struct {
	Watches []Watch
	// Groups are the mounts of cgroup v2, by their old mount id.
	Groups map[uint32]GroupMount
	// NextTimer is the time that was left until the next absolute timer (timerfd) expires,
	// 0 if none was set.
	NextTimer time.Duration
	// Fractions are the fractions of a second that CLOCK_MONOTONIC and CLOCK_BOOTTIME
	// showed at the end of the checkpoint, by these constants; empty if they are unknown.
	// CRIU before 3.14 does not save them.
	Fractions map[int]time.Duration
}

// ReadWatches reads the watches and timers of the checkpointed processes. Its errors are
// those of [Read]. A checkpoint without open files gives an empty result.
func ReadWatches(dir *os.File) (*Watched, error) {
	names, err := list(dir)
	if err != nil {
		return nil, err
	}
	if len(names.mounts) == 0 {
		return nil, fmt.Errorf("%s: %w", dir.Name(), ErrNoImages)
	}
	w := &Watched{Groups: make(map[uint32]GroupMount), Fractions: make(map[int]time.Duration)}
	total := 0
	for _, name := range names.mounts {
		f, err := load(dir, name, min(maxMountsFile, maxTotal-total))
		if err != nil {
			return nil, err
		}
		total += len(f.data)
		if err := f.decodeGroupMounts(w.Groups); err != nil {
			return nil, err
		}
	}
	for _, name := range names.clocks {
		f, err := load(dir, name, maxClocksFile)
		if err == nil {
			err = f.decodeClocks(w.Fractions)
		}
		if err != nil {
			clear(w.Fractions)
			break // a group that is not created makes the restore fail, a late timer does not
		}
	}
	f, err := load(dir, filesName, maxFilesFile)
	if errors.Is(err, fs.ErrNotExist) {
		return w, nil
	}
	if err != nil {
		return nil, err
	}
	if w.Watches, err = f.decodeWatches(); err == nil {
		w.NextTimer, err = f.decodeTimers()
	}
	return w, err
}

// decodeGroupMounts adds the mounts of cgroup v2 of one mountpoints image.
func (f *file) decodeGroupMounts(groups map[uint32]GroupMount) error {
	return f.records(magicMounts, func(offset int, record []byte) error {
		m, err := f.decode(offset, record)
		if err != nil {
			return err
		}
		if m.uint32(1, "fstype", true) != fstypeCgroup2 {
			return m.err
		}
		id := m.uint32(2, "mnt_id", true)
		mount := GroupMount{
			Root:       m.string(6, "root", maxPath),
			MountPoint: m.string(7, "mountpoint", maxPath),
		}
		if !clean(mount.MountPoint) {
			m.failed("mountpoint", fmt.Errorf("%w: %q", ErrMountPoint, shorten(mount.MountPoint)))
		}
		if len(groups) >= maxMounts {
			m.failed("", fmt.Errorf("%w: more than %d mounts", ErrTooLarge, maxMounts))
		}
		groups[id] = mount
		return m.err
	})
}
