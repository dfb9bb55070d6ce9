//go:build linux

package kernel

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
)

// TestPacketAndReady reads a request and answers it.
func TestPacketAndReady(t *testing.T) {
	s := newScratch(t, nil)
	p := touch(t, s.path+"/hello")
	got := s.request(t)
	want := autofs.Packet{
		Type: autofs.MissingDirect, Token: got.Token, Device: s.device, Inode: s.inode, Name: got.Name,
		PID: got.PID, TGID: uint32(p.cmd.Process.Pid),
	}
	if got != want || got.Token == 0 || got.PID == 0 {
		t.Errorf("request %+v, want %+v", got, want)
	}
	p.hangs(t)
	if err := autofs.Ready(s.root, got.Token+1); !errors.Is(err, unix.EINVAL) {
		t.Errorf("unknown token: %v", err)
	}
	if err := autofs.Ready(s.mount, got.Token); !errors.Is(err, unix.EBADF) {
		t.Errorf("on an O_PATH descriptor: %v", err)
	}
	// Nothing is mounted yet: the process makes another request.
	if err := autofs.Ready(s.root, got.Token); err != nil {
		t.Fatal(err)
	}
	again := s.request(t)
	if again.Token == got.Token {
		t.Error("the same token again")
	}
	if err := serveContent(s.mount); err != nil {
		t.Fatal(err)
	}
	if err := autofs.Ready(s.root, again.Token); err != nil {
		t.Fatal(err)
	}
	p.expect(t, 0)
}

// TestPacketIndirect has a name in the request.
func TestPacketIndirect(t *testing.T) {
	s := newScratch(t, func(o *autofs.CreateOptions) { o.Type = autofs.Indirect })
	p := touch(t, filepath.Join(s.path, "home"))
	got := s.request(t)
	if got.Type != autofs.MissingIndirect || got.Name != "home" || got.Device != s.device {
		t.Errorf("request %+v", got)
	}
	// The test is the master, so it can create the entry without a request.
	if err := os.Mkdir(filepath.Join(s.path, "home"), 0o755); err != nil {
		t.Fatal(err)
	}
	entry, err := os.OpenFile(filepath.Join(s.path, "home"), unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer entry.Close()
	if err := serveContent(entry); err != nil {
		t.Fatal(err)
	}
	if err := autofs.Ready(s.root, got.Token); err != nil {
		t.Fatal(err)
	}
	p.expect(t, 0)
}

// TestOpenMount opens the mount by its number, covered or not, without triggering it.
func TestOpenMount(t *testing.T) {
	s := newScratch(t, nil)
	control, err := autofs.OpenControl()
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	open := func() {
		t.Helper()
		root, err := control.OpenMount(s.path, s.device)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		closeOnExec(t, root)
		if device, err := autofs.Device(root); err != nil || device != s.device {
			t.Errorf("opened device %d, %v", device, err)
		}
		if err := autofs.Ready(root, 0); !errors.Is(err, unix.EINVAL) {
			t.Errorf("not a root that takes ioctls: %v", err)
		}
	}
	open()
	if err := serveContent(s.mount); err != nil {
		t.Fatal(err)
	}
	open()
	for name, err := range map[string]error{
		"other number": second(control.OpenMount(s.path, s.device+1)),
		"other path":   second(control.OpenMount(filepath.Dir(s.path), s.device)),
		"absent path":  second(control.OpenMount(s.path+"-absent", s.device)),
		"large number": second(control.OpenMount(s.path, unix.Mkdev(0, 1<<20-1))),
	} {
		if !errors.Is(err, unix.ENOENT) {
			t.Errorf("%s: %v, not ENOENT", name, err)
		}
	}
	for _, path := range []string{"", "auto", "./auto"} {
		if err := second(control.OpenMount(path, s.device)); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%q: %v, not EINVAL", path, err)
		}
	}
	if s.pending(t, 0) {
		t.Error("opening made a request")
	}
}

func second(_ *os.File, err error) error { return err }
