//go:build linux

package kernel

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
)

func masters(t *testing.T, test func(t *testing.T, style string)) {
	for _, style := range []string{likeSystemd, likeAutomount} {
		t.Run(style, func(t *testing.T) { test(t, style) })
	}
}

// TestServed: without a restore an access is served.
func TestServed(t *testing.T) {
	masters(t, func(t *testing.T, style string) {
		m := startMaster(t, style)
		touch(t, m.path+"/hello").expect(t, 0)
		m.expect(t, "answered")
		touch(t, m.path+"/absent").expect(t, unix.ENOENT)
	})
}

// TestReplacedSuperblockHangs shows the problem in a small setup: the master gets the
// request and does not know the mount. Release releases the waiter, and since Linux 6.6
// CATATONIC alone does.
func TestReplacedSuperblockHangs(t *testing.T) {
	for name, catatonic := range map[string]func(*os.File) error{
		"release": autofs.Release,
		"root":    autofs.Catatonic,
	} {
		t.Run(name, func(t *testing.T) {
			if name != "release" {
				Lacks(t, 6, 6, "CATATONIC wakes processes that wait killably (17fce12e7c0a)")
			}
			masters(t, func(t *testing.T, style string) {
				m := startMaster(t, style)
				next := m.successor(t)
				m.replace(t, next)
				if device, err := autofs.Device(next); err != nil || device == m.device {
					t.Fatalf("device number did not change: %d, %v", device, err)
				}

				first := touch(t, m.path+"/hello")
				m.expect(t, "stale: ")
				first.hangs(t)
				second := touch(t, m.path)
				second.hangs(t)

				// Opened from an earlier descriptor while there are waiters.
				root, err := autofs.Reopen(next)
				if err != nil {
					t.Fatal(err)
				}
				defer root.Close()
				if err := catatonic(root); err != nil {
					t.Fatal(err)
				}
				first.expect(t, unix.ENOENT)
				second.expect(t, unix.ENOENT)
				if o := options(t, m.path); !o.Catatonic() || o.HasPipe {
					t.Errorf("not catatonic: %+v", o)
				}
				if err := catatonic(root); err != nil {
					t.Errorf("a second time: %v", err)
				}
			})
		})
	}
}

// TestPreservedDevice: a successor with the old device number is served by a
// master that remembers only that, and not by one that remembers the inode too.
func TestPreservedDevice(t *testing.T) {
	masters(t, func(t *testing.T, style string) {
		m := startMaster(t, style)
		// Opened first: without a writer the master would see a hang-up.
		guard := m.successor(t)
		if err := unix.Unmount(m.path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			t.Fatal(err)
		}
		m.keep.Close()

		var next *os.File
		eventually(t, "the old device number again", func() bool {
			next = m.successor(t)
			device, err := autofs.Device(next)
			if err != nil {
				t.Fatal(err)
			}
			if device > m.device {
				next.Close() // not free yet: the old superblock is freed a little later
			}
			return device == m.device // a lower one stays open and fills its number
		})
		if err := attach(next, m.path); err != nil {
			t.Fatal(err)
		}
		guard.Close()

		access := touch(t, m.path+"/hello")
		if style == likeSystemd {
			access.expect(t, 0)
			m.expect(t, "answered")
			return
		}
		m.expect(t, "stale: ")
		access.hangs(t)
		root, err := autofs.Reopen(next)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		if err := autofs.Release(root); err != nil {
			t.Fatal(err)
		}
		access.expect(t, unix.ENOENT)
	})
}
