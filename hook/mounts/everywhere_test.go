package mounts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
)

// TestReplaceEverywhere has several namespaces, of each kind of propagation.
func TestReplaceEverywhere(t *testing.T) {
	for name, test := range map[string]struct{ first, second, third uintptr }{
		"peers":                     {unix.MS_SHARED, 0, 0},
		"slaves":                    {unix.MS_SHARED, unix.MS_SLAVE, unix.MS_SLAVE},
		"private copies":            {unix.MS_SHARED, unix.MS_PRIVATE, unix.MS_PRIVATE},
		"one of each":               {unix.MS_SHARED, unix.MS_SLAVE, unix.MS_PRIVATE},
		"a private one, its copies": {unix.MS_PRIVATE, 0, 0},
	} {
		for _, covered := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, covered %v", name, covered), func(t *testing.T) {
				h := newHouse(t, test.first)
				path := filepath.Join(h.base, "auto")
				old := map[string]uint64{path: h.automount(t, path)}
				if covered {
					h.cover(t, path, "cover")
					h.cover(t, path, "second")
				}
				houses := []*house{h, h.neighbour(t, test.second), h.neighbour(t, test.third)}
				replace(t, houses, old)
				for _, each := range houses {
					if covered {
						each.expectFile(t, filepath.Join(path, "second"))
					}
				}
			})
		}
	}
}

// TestOldSuperblockGoes: nothing keeps it, so its pipe has no writer any more.
func TestOldSuperblockGoes(t *testing.T) {
	h := newHouse(t, unix.MS_SHARED)
	houses := []*house{h, h.neighbour(t, unix.MS_SLAVE), h.neighbour(t, unix.MS_PRIVATE)}
	path := filepath.Join(h.base, "auto")
	h.do(t, func() error { return os.Mkdir(path, 0o755) })
	root, device := superblock(t)
	var info string
	for i, each := range houses {
		// By hand in the private one, which does not receive it.
		each.do(t, func() error {
			var st unix.Stat_t
			if err := unix.Lstat(path, &st); err != nil || st.Dev == device {
				return err
			}
			tree := root
			if i > 0 { // a mount that is in no namespace cannot be copied before Linux 6.15
				copied, err := h.copyOf(path, device)
				if err != nil {
					return err
				}
				defer copied.Close()
				tree = copied
			}
			return unix.MoveMount(int(tree.Fd()), "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH)
		})
		_, m := each.only(t, path)
		info = m.VFSOptions
	}
	root.Close()
	_, inode, _ := strings.Cut(info, "pipe_ino=")
	pipe := readEnd(t, "pipe:["+inode+"]")
	if hungUp(t, pipe, 0) {
		t.Fatal("the superblock has no pipe")
	}
	replace(t, houses, map[string]uint64{path: device})
	if !hungUp(t, pipe, testenv.Patience) {
		t.Error("the old superblock still exists")
	}
}

// readEnd finds our descriptor of a pipe.
func readEnd(t *testing.T, link string) int {
	t.Helper()
	for fd := range 1000 {
		if have, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err == nil && have == link {
			return fd
		}
	}
	t.Fatalf("no descriptor of %s", link)
	return -1
}

func hungUp(t *testing.T, pipe int, limit time.Duration) bool {
	t.Helper()
	for {
		fds := []unix.PollFd{{Fd: int32(pipe), Events: unix.POLLIN}}
		_, err := unix.Poll(fds, int(limit.Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		return fds[0].Revents&unix.POLLHUP != 0
	}
}
