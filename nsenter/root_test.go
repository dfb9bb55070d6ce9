package nsenter

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
)

// TestOpenInRoot: no link leads out of the container's root.
func TestOpenInRoot(t *testing.T) {
	testenv.RequireRoot(t)
	root := t.TempDir()
	for _, dir := range []string{"bin", "dir", "proc"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	outside := filepath.Join(t.TempDir(), "file")
	write(outside, "outside")
	write(filepath.Join(root, "dir/file"), "inside")
	for link, target := range map[string]string{
		"absolute": outside, "up": "../../../../../../.." + outside, "inner": "dir/file", "folder": "dir", "loop": "loop",
		"magic": "/proc/self/root", "top": "/",
	} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	p := chrooted(t, root)
	read := func(path string) (string, error) {
		f, err := p.OpenInRoot(path, unix.O_RDONLY)
		if err != nil {
			return "", err
		}
		defer f.Close()
		data, err := io.ReadAll(f)
		return string(data), err
	}
	for path, want := range map[string]string{"/dir/file": "inside", "/dir/../../../dir/file": "inside", "dir/file": "inside"} {
		if got, err := read(path); got != want || err != nil {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	for path, want := range map[string]error{
		"/absolute": unix.ELOOP, "/up": unix.ELOOP, "/inner": unix.ELOOP, "/folder/file": unix.ELOOP, "/loop": unix.ELOOP,
		"/magic" + outside: unix.ELOOP, "/top" + outside: unix.ELOOP, outside: unix.ENOENT, "/.." + outside: unix.ENOENT, "": unix.ENOENT,
	} {
		if got, err := read(path); !errors.Is(err, want) {
			t.Errorf("%q: %q, %v, want %v", path, got, err, want)
		}
	}
	f, err := p.OpenInRoot("/dir", unix.O_PATH)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("not close-on-exec (%v)", err)
	}
}

// chrooted starts a child whose root directory is the given one.
func chrooted(t *testing.T, root string) *Process {
	t.Helper()
	t.Setenv(roleVariable, "chroot")
	p := open(t, testenv.StartCommand(t, nil, "/proc/self/exe", root))
	testenv.Eventually(t, "a process with another root", func() bool {
		link, err := p.Readlink("root")
		return err == nil && link == root
	})
	return p
}

// runChroot is the child of chrooted.
func runChroot(root string) int {
	if err := unix.Chroot(root); err != nil {
		return 1
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}
