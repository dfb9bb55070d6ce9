package criuimage

import (
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
)

// Mount is one autofs mount at the time of the checkpoint (mnt_entry of
// images/mnt.proto).
type Mount struct {
	// MountID and ParentID are the old ids; restored mounts have others.
	MountID, ParentID uint32
	// NamespaceID is CRIU's id of the mount namespace, from the name of the file; not an
	// inode number.
	NamespaceID uint32
	// Device is the old st_dev.
	Device uint64
	// MountPoint is absolute and clean, within the root of its namespace.
	MountPoint string
	// Source as in mountinfo, such as systemd-1.
	Source string
	// Options is the raw, unchecked text, with the process group number of the host; see
	// [autofs.ParseOptions].
	Options string
	// Root is the path within the filesystem, "/" except for bind mounts.
	Root string
	// SharedID and MasterID are peer groups; 0 for none.
	SharedID, MasterID uint32
}

const fstypeAutofs = 18 // enum fstype of images/mnt.proto

const (
	maxPath    = unix.PathMax
	maxOptions = 64 << 10 // the kernel's are at most a page
	// maxMounts bounds the entries of one file: the kernel allows 100000 mounts in a
	// namespace (fs.mount-max).
	maxMounts = 200000
	// maxAutofs bounds the autofs mounts of all files. A container with more is not
	// repaired (package container).
	maxAutofs = 1 << 14
)

// decodeMounts returns the autofs mounts of one mountpoints image. Of other mounts it
// checks only the ids.
func (f *file) decodeMounts(namespace uint32) ([]Mount, error) {
	var mounts []Mount
	parents := make(map[uint32]uint32)
	err := f.records(magicMounts, func(offset int, record []byte) error {
		m, err := f.decode(offset, record)
		if err != nil {
			return err
		}
		if len(parents) >= maxMounts {
			return f.fail(offset, "", fmt.Errorf("%w: more than %d mounts", ErrTooLarge, maxMounts))
		}
		fstype := m.uint32(1, "fstype", true)
		mount := Mount{
			MountID:     m.uint32(2, "mnt_id", true),
			ParentID:    m.uint32(4, "parent_mnt_id", true),
			NamespaceID: namespace,
		}
		if _, twice := parents[mount.MountID]; twice {
			m.failed("mnt_id", fmt.Errorf("%w: %d", ErrDuplicate, mount.MountID))
		}
		parents[mount.MountID] = mount.ParentID
		if fstype == fstypeAutofs {
			if mount.ParentID == mount.MountID {
				m.failed("parent_mnt_id", fmt.Errorf("%w: mount %d", ErrCycle, mount.MountID))
			}
			m.autofsMount(&mount)
			mounts = append(mounts, mount)
		}
		return m.err
	})
	if err != nil {
		return nil, err
	}
	if id, found := cycle(parents); found {
		return nil, f.fail(0, "parent_mnt_id", fmt.Errorf("%w: mount %d", ErrCycle, id))
	}
	return mounts, nil
}

func (m *message) autofsMount(mount *Mount) {
	major, minor := autofs.DeviceFromImage(m.uint32(3, "root_dev", true))
	mount.Device = unix.Mkdev(major, minor)
	mount.Root = m.string(6, "root", maxPath)
	mount.MountPoint = m.string(7, "mountpoint", maxPath)
	mount.Source = m.string(8, "source", maxPath)
	mount.Options = m.string(9, "options", maxOptions)
	mount.SharedID = m.uint32(10, "shared_id", false)
	mount.MasterID = m.uint32(11, "master_id", false)
	if mount.Device == 0 {
		m.failed("root_dev", fmt.Errorf("%w: 0", ErrRange))
	}
	if !clean(mount.MountPoint) {
		m.failed("mountpoint", fmt.Errorf("%w: %q", ErrMountPoint, shorten(mount.MountPoint)))
	}
}

// clean reports whether p is absolute, lexically clean and without a NUL, which would
// truncate it in a system call.
func clean(p string) bool {
	return path.IsAbs(p) && path.Clean(p) == p && strings.IndexByte(p, 0) < 0
}

// cycle looks for a mount that is its own ancestor. The root mount has a parent outside
// the image, or is its own parent, like the first mount of a machine. checked holds the
// number of the walk that visited a mount, so that each mount is visited once.
func cycle(parents map[uint32]uint32) (uint32, bool) {
	checked := make(map[uint32]int, len(parents))
	walk := 0
	for id := range parents {
		for walk++; checked[id] == 0; {
			checked[id] = walk
			parent, ok := parents[id]
			if !ok || parent == id {
				break
			}
			if checked[parent] == walk {
				return parent, true
			}
			id = parent
		}
	}
	return 0, false
}

func shorten(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}
