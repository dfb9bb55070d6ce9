//go:build linux

package criuimage

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
)

func checkpoint() map[string][]byte {
	return map[string][]byte{
		"inventory.img":      {1, 2, 3},
		"mountpoints-12.img": image(mountsHead, root(), entry()),
		// 0:300, which Mkdev and the image write differently; version 1 head
		"mountpoints-7.img": image([]uint32{magicMounts}, root(), entry(field{2, 9}, field{3, 300}, field{7, "/net"})),
		"autofs-54.img":     image(autofsHead, superblock()),
		"autofs-300.img":    image(autofsHead, superblock(field{1, -1}, field{6, 1}, field{7, 1000}, field{8, -2}, field{9, nil})),
		"autofs-x.img":      {0},
		"autofs-007.img":    {0},
		"autofs-1.img.tmp":  {0},
	}
}

func TestRead(t *testing.T) {
	dir := write(t, checkpoint())
	want := &Set{
		Mounts: []Mount{
			{MountID: 9, ParentID: 300, NamespaceID: 7, Device: unix.Mkdev(0, 300), MountPoint: "/net", Source: "systemd-1", Options: systemdOptions, Root: "/", SharedID: 7, MasterID: 3},
			{MountID: 301, ParentID: 300, NamespaceID: 12, Device: 54, MountPoint: "/mnt/auto", Source: "systemd-1", Options: systemdOptions, Root: "/", SharedID: 7, MasterID: 3},
		},
		Superblocks: map[uint64]Superblock{
			54:                 {Device: 54, FD: 9, ProcessGroup: 1, Timeout: time.Minute, MinProto: 5, MaxProto: 5, Mode: autofs.Direct, UID: -1, GID: -1, ReadFD: 44},
			unix.Mkdev(0, 300): {Device: unix.Mkdev(0, 300), FD: -1, ProcessGroup: 1, Timeout: time.Minute, MinProto: 5, MaxProto: 5, Mode: autofs.Indirect, UID: 1000, GID: 4294967294, ReadFD: -1},
		},
	}
	for name, read := range map[string]func() (*Set, error){
		"descriptor": func() (*Set, error) { return Read(dir) },
		"again":      func() (*Set, error) { return Read(dir) },
		"O_PATH": func() (*Set, error) {
			f, err := os.OpenFile(dir.Name(), unix.O_PATH|unix.O_DIRECTORY, 0)
			if err != nil {
				return nil, err
			}
			defer f.Close()
			return Read(f)
		},
	} {
		got, err := read()
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v\nwant %+v", name, got, want)
		}
	}
	if o, err := autofs.ParseOptions(want.Mounts[0].Options); err != nil || o.ProcessGroup != 80 {
		t.Errorf("raw options of an image: %+v, %v", o, err)
	}
	if has, err := HasAutofs(dir); err != nil || !has {
		t.Errorf("HasAutofs: %v, %v", has, err)
	}
}

func TestReadNothing(t *testing.T) {
	empty := write(t, nil)
	if set, err := Read(empty); set != nil || !errors.Is(err, ErrNoImages) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("empty directory: %v, %v", set, err)
	}
	if has, err := HasAutofs(empty); has || !errors.Is(err, ErrNoImages) {
		t.Errorf("HasAutofs of an empty directory: %v, %v", has, err)
	}
	if err := os.Remove(empty.Name()); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(empty); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed directory: %v", err)
	}
	if _, err := Read(nil); err == nil {
		t.Error("no directory: no error")
	}
	if set, err := Read(write(t, map[string][]byte{"mountpoints-1.img": image(mountsHead, root())})); err != nil || set == nil || len(set.Mounts) != 0 {
		t.Errorf("without autofs: %+v, %v", set, err)
	}
}

// TestReadHostileNames puts other things than files where images should be.
func TestReadHostileNames(t *testing.T) {
	target := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(target, image(mountsHead), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		make func(path string) error
		want error
	}{
		"symlink":   {func(p string) error { return os.Symlink(target, p) }, unix.ELOOP},
		"fifo":      {func(p string) error { return unix.Mkfifo(p, 0o600) }, ErrFileType},
		"directory": {func(p string) error { return os.Mkdir(p, 0o700) }, ErrFileType},
		"huge":      {func(p string) error { return sparse(p, maxMountsFile+1) }, ErrTooLarge},
	} {
		files := checkpoint()
		delete(files, "mountpoints-7.img")
		dir := write(t, files)
		if err := test.make(filepath.Join(dir.Name(), "mountpoints-7.img")); err != nil {
			t.Fatal(err)
		}
		if set, err := Read(dir); set != nil || !errors.Is(err, test.want) {
			t.Errorf("%s: %v, %v", name, set, err)
		}
	}
	many := maps.Clone(checkpoint())
	for i := range maxFiles + 1 {
		many[fmt.Sprintf("autofs-%d.img", i+1000)] = nil
	}
	if _, err := Read(write(t, many)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too many files: %v", err)
	}
}

func sparse(path string, size int64) error {
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	return os.Truncate(path, size)
}
