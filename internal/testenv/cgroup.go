package testenv

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// Cgroup creates a control group of version 2, and returns its directory. It is removed
// with the groups below it at the end of the test. It needs root.
func Cgroup(t testing.TB) string {
	t.Helper()
	RequireRoot(t)
	mount := t.TempDir()
	if err := unix.Mount("cgroup2", mount, "cgroup2", 0, ""); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(mount, "autofs-restore-hook-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		var dirs []string
		_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil // a process of the test may be removing groups, too
		})
		for _, d := range slices.Backward(dirs) {
			var err error
			// It is busy for a moment after the end of its last process.
			Eventually(t, d+" is removed", func() bool {
				err = unix.Rmdir(d)
				return !errors.Is(err, unix.EBUSY)
			})
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %v", d, err)
			}
		}
		if err := unix.Unmount(mount, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}
