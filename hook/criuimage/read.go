//go:build linux

package criuimage

import (
	"cmp"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
)

// Set holds the autofs mounts and superblocks of an image directory. Identify mounts by
// MountID and MountPoint, not by Device: restored mounts have device numbers from the same
// small range.
type Set struct {
	// Mounts of all mount namespaces, ordered by namespace and mount id.
	Mounts []Mount
	// Superblocks by st_dev. A mount may have none: CRIU does not dump external mounts.
	Superblocks map[uint64]Superblock
}

// Limits of one image directory.
const (
	maxMountsFile     = 64 << 20
	maxSuperblockFile = 64 << 10
	maxFiles          = 4096              // of each kind
	maxTotal          = 2 * maxMountsFile // of all mountpoints images
)

// Read reads the images in an open directory, which may be one of O_PATH. Errors:
// fs.ErrNotExist if the directory has been removed, [ErrNoImages] if it holds no
// checkpoint, a [*FormatError] for an invalid file, *os.PathError for a failed system
// call. A directory without autofs gives an empty Set.
func Read(dir *os.File) (*Set, error) {
	names, err := list(dir)
	if err != nil {
		return nil, err
	}
	if len(names.mounts) == 0 {
		return nil, fmt.Errorf("%s: %w", dir.Name(), ErrNoImages)
	}
	set := &Set{Superblocks: make(map[uint64]Superblock)}
	total := 0
	for id, name := range names.mounts {
		f, err := load(dir, name, min(maxMountsFile, maxTotal-total))
		if err != nil {
			return nil, err
		}
		total += len(f.data)
		mounts, err := f.decodeMounts(id)
		if err != nil {
			return nil, err
		}
		set.Mounts = append(set.Mounts, mounts...)
		if len(set.Mounts) > maxAutofs {
			return nil, f.fail(0, "", fmt.Errorf("%w: more than %d autofs mounts", ErrTooLarge, maxAutofs))
		}
	}
	slices.SortFunc(set.Mounts, func(a, b Mount) int {
		return cmp.Or(cmp.Compare(a.NamespaceID, b.NamespaceID), cmp.Compare(a.MountID, b.MountID))
	})
	for number, name := range names.superblocks {
		major, minor := autofs.DeviceFromImage(number)
		device := unix.Mkdev(major, minor)
		f, err := load(dir, name, maxSuperblockFile)
		if err != nil {
			return nil, err
		}
		if set.Superblocks[device], err = f.decodeSuperblock(device); err != nil {
			return nil, err
		}
	}
	return set, nil
}

// HasAutofs reports, by the names alone, whether the checkpoint holds an autofs
// superblock. It does not validate the images. The error is [ErrNoImages] if the
// directory holds no checkpoint.
func HasAutofs(dir *os.File) (bool, error) {
	names, err := list(dir)
	if err == nil && len(names.mounts) == 0 {
		err = fmt.Errorf("%s: %w", dir.Name(), ErrNoImages)
	}
	if err != nil {
		return false, err
	}
	return len(names.superblocks) > 0, nil
}
