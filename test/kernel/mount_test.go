//go:build linux

package kernel

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
)

// requireAutofs skips the test without root or autofs.
func requireAutofs(t *testing.T) {
	t.Helper()
	Require(t, os.Geteuid() == 0, "root")
	_, err := os.Stat(autofs.ControlPath)
	Require(t, err == nil, "autofs in the kernel, and "+autofs.ControlPath)
}

// mountPoint returns an empty directory on a separate tmpfs. At the end of the test the
// tmpfs is detached with all mounts in it, without resolving a path on it: removing files
// recursively could hang.
func mountPoint(t *testing.T) string {
	t.Helper()
	base, err := os.MkdirTemp("", "autofs-kernel-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(base); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Mount("tmpfs", base, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(base, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(base, "auto")
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func attach(mount *os.File, path string) error {
	return os.NewSyscallError("move_mount",
		unix.MoveMount(int(mount.Fd()), "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH))
}

// serveContent mounts a tmpfs with the file hello onto an open directory.
func serveContent(onto *os.File) error {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return err
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(mount)
	hello, err := unix.Openat(mount, "hello", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	unix.Close(hello)
	return unix.MoveMount(mount, "", int(onto.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// mountinfo returns source and super options of the autofs at path.
func mountinfo(t *testing.T, path string) (source, super string) {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		left, right, _ := strings.Cut(strings.TrimSpace(line), " - ")
		if strings.Fields(left)[4] != path || !strings.HasPrefix(right, "autofs ") {
			continue
		}
		f := strings.Fields(right)
		source, super = f[1], f[2]
	}
	if super == "" {
		t.Fatalf("no autofs at %s", path)
	}
	return source, super
}

func options(t *testing.T, path string) autofs.Options {
	t.Helper()
	_, super := mountinfo(t, path)
	o, err := autofs.ParseOptions(super)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// scratch is an autofs whose master is the test itself.
type scratch struct {
	path         string
	mount        *os.File // detached or attached mount, O_PATH
	root         *os.File // real descriptor on the root
	requests     *os.File // read end of the pipe
	device       uint64
	inode        uint64
	writerNumber uint64 // inode of the pipe
}

func newScratch(t *testing.T, change func(*autofs.CreateOptions)) *scratch {
	t.Helper()
	requireAutofs(t)
	s := &scratch{path: mountPoint(t)}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { read.Close() })
	defer write.Close()
	s.requests = read
	s.writerNumber = inode(t, write)

	o := autofs.CreateOptions{PipeWriter: write, Type: autofs.Direct, UID: -1, GID: -1, Source: "kernel-test"}
	if change != nil {
		change(&o)
	}
	if s.mount, err = autofs.Create(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.mount.Close() })
	if s.device, err = autofs.Device(s.mount); err != nil {
		t.Fatal(err)
	}
	s.inode = inode(t, s.mount)
	if s.root, err = autofs.Reopen(s.mount); err != nil {
		t.Fatal(err)
	}
	// Before the pipe is closed, so that no process stays blocked.
	t.Cleanup(func() {
		if err := autofs.Catatonic(s.root); err != nil {
			t.Error(err)
		}
		s.root.Close()
	})
	if err := attach(s.mount, s.path); err != nil {
		t.Fatal(err)
	}
	return s
}

// request reads the next packet.
func (s *scratch) request(t *testing.T) autofs.Packet {
	t.Helper()
	if !s.pending(t, patience.Milliseconds()) {
		t.Fatal("the kernel sends no request")
	}
	b := make([]byte, 2*autofs.PacketSize)
	n, err := s.requests.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	p, err := autofs.ParsePacket(b[:n])
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// pending reports whether a request arrives within some milliseconds.
func (s *scratch) pending(t *testing.T, ms int64) bool {
	t.Helper()
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(s.requests.Fd()), Events: unix.POLLIN}}, int(ms))
		if err == nil {
			return n > 0
		}
		if err != unix.EINTR {
			t.Fatal(err)
		}
	}
}

func inode(t *testing.T, f *os.File) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func closeOnExec(t *testing.T, f *os.File) {
	t.Helper()
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("%s: descriptor is not close-on-exec (%v)", f.Name(), err)
	}
}

func descriptors(t *testing.T) string {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(len(names))
}
