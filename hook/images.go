package hook

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/criuimage"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/forecast"
)

// hasAutofs reports, by the names of the images alone, whether autofs mounts were
// checkpointed. A directory without images is no error.
func hasAutofs(dir string) (bool, error) {
	has, err := imagesHaveAutofs(dir)
	if errors.Is(err, criuimage.ErrNoImages) || errors.Is(err, fs.ErrNotExist) {
		return false, nil // no mount namespace of its own was checkpointed
	}
	return has, err
}

// imagesHaveAutofs is hasAutofs, with an error if the directory has no images.
func imagesHaveAutofs(dir string) (bool, error) { return fromImages(dir, criuimage.HasAutofs) }

// readImages reads the autofs mounts of the checkpoint.
func readImages(dir string) (*criuimage.Set, error) { return fromImages(dir, criuimage.Read) }

// readWatches reads the watches and timers of the checkpointed processes.
func readWatches(dir string) (*criuimage.Watched, error) {
	return fromImages(dir, criuimage.ReadWatches)
}

// fromImages reads from a directory of checkpoint images.
func fromImages[T any](dir string, read func(dir *os.File) (T, error)) (v T, err error) {
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		defer f.Close()
		v, err = read(f)
	}
	if err != nil {
		return v, fmt.Errorf("checkpoint images: %w", err)
	}
	return v, nil
}

// imageProblems describes, in one line, why a restore of the images will or may fail;
// "" if no reason was found.
func imageProblems(set *criuimage.Set, watched *criuimage.Watched) string {
	var list []forecast.Autofs
	for _, m := range set.Mounts {
		if o, err := autofs.ParseOptions(m.Options); err == nil {
			list = append(list, forecast.Autofs{Namespace: uint64(m.NamespaceID), Path: m.MountPoint, Type: o.Type, Daemon: !strings.HasPrefix(m.Source, "systemd-")})
		}
	}
	pinned := 0
	for _, w := range watched.Watches {
		if w.Path == "" {
			pinned++
		}
	}
	return forecast.RestoreProblems(list, pinned)
}
