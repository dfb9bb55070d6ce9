//go:build linux

package kernel

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
)

// TestReopen opens real descriptors where resolving a path would make a request or wait:
// from a process that is not the master, idle, with a waiter, and when covered.
func TestReopen(t *testing.T) {
	for _, kind := range []autofs.Type{autofs.Direct, autofs.Offset, autofs.Indirect} {
		t.Run(kind.String(), func(t *testing.T) {
			// init's group is the master: the test has no privilege of a master
			s := newScratch(t, func(o *autofs.CreateOptions) { o.Type, o.ProcessGroup = kind, 1 })
			opath, err := os.OpenFile(s.path, unix.O_PATH, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer opath.Close()
			reopen := func(state string) {
				t.Helper()
				root, err := autofs.Reopen(opath)
				if err != nil {
					t.Fatalf("%s: %v", state, err)
				}
				defer root.Close()
				closeOnExec(t, root)
				if device, err := autofs.Device(root); err != nil || device != s.device {
					t.Errorf("%s: device %d, %v", state, device, err)
				}
				if err := autofs.Ready(root, 0); !errors.Is(err, unix.EINVAL) {
					t.Errorf("%s: not a root that takes ioctls: %v", state, err)
				}
			}
			reopen("idle")
			if s.pending(t, 50) {
				t.Error("reopening made a request")
			}
			if kind.Trigger() {
				p := touch(t, s.path+"/hello")
				token := s.request(t).Token
				p.hangs(t)
				reopen("while a process waits")
				if err := serveContent(opath); err != nil {
					t.Fatal(err)
				}
				reopen("covered, while a process waits")
				if err := autofs.Ready(s.root, token); err != nil {
					t.Fatal(err)
				}
				p.expect(t, 0)
			} else if err := serveContent(opath); err != nil {
				t.Fatal(err)
			}
			reopen("covered")
		})
	}
}
