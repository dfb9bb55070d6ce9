package systemd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// TestNothingBehindBegin has a systemd that is slow to read. What follows the
// authentication must not reach it together with its end.
func TestNothingBehindBegin(t *testing.T) {
	self, err := nsenter.Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	last := make(chan string, 1)
	go func() {
		buf := make([]byte, 4096)
		answers := []string{"REJECTED EXTERNAL\r\n", "DATA\r\n", "OK 0123456789abcdef0123456789abcdef\r\n"}
		for _, answer := range answers {
			if _, err := unix.Read(pair[1], buf); err != nil {
				break
			}
			if _, err := unix.Write(pair[1], []byte(answer)); err != nil {
				break
			}
		}
		time.Sleep(100 * time.Millisecond)
		n, _ := unix.Read(pair[1], buf)
		last <- string(buf[:max(n, 0)])
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 1500*time.Millisecond)
	defer cancel()
	m := &Manager{pid1: self, jobs: newJobResults()}
	if m.conn, err = m.authenticate(ctx, pair[0]); err != nil {
		t.Fatal(err)
	}
	defer m.conn.Close()
	if err := m.Ping(ctx); err == nil {
		t.Error("an answer without a systemd")
	}
	// More of the authentication may come with it, but nothing behind it.
	if got := <-last; !strings.HasSuffix(got, "BEGIN\r\n") {
		t.Errorf("the last read of the authentication brings %q", got)
	}
}

func TestCredentials(t *testing.T) {
	testenv.RequireRoot(t)
	full := testproc.Open(t, testenv.Start(t, nil))
	ours, err := full.Capabilities("CapEff")
	if err != nil || ours == 0 {
		t.Fatalf("%#x, %v", ours, err)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil || !bytes.Contains(status, fmt.Appendf(nil, "CapEff:\t%016x\n", ours)) {
		t.Errorf("capabilities %#x are not those of\n%s%v", ours, status, err)
	}
	none := testproc.Open(t, testenv.Start(t, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}))
	for name, test := range map[string]struct {
		p    *nsenter.Process
		want uint64
	}{"root": {full, ours}, "no capabilities": {none, 0}} {
		if got, err := commonCapabilities(test.p); err != nil || got != test.want {
			t.Errorf("%s: %#x, %v, want %#x", name, got, err, test.want)
		}
	}
}

func TestSocketAddress(t *testing.T) {
	longest := strings.Repeat("x", 107)
	for path, want := range map[string]uintptr{"/a": 5, longest: 110} {
		address, length, err := socketAddress(path)
		if err != nil || length != want || address.Path[len(path)-1] != int8(path[len(path)-1]) {
			t.Errorf("%q: %d, %v", path, length, err)
		}
	}
	if _, _, err := socketAddress(longest + "x"); err == nil {
		t.Error("108 bytes fit")
	}
}

// TestIsReexecuting: these errors are tried again for a while.
func TestIsReexecuting(t *testing.T) {
	for _, err := range []error{unix.EPIPE, unix.ECONNRESET, unix.ECONNREFUSED, unix.ENOENT, io.EOF} {
		if wrapped := fmt.Errorf("D-Bus: %w", &net.OpError{Op: "write", Err: os.NewSyscallError("write", err)}); !IsReexecuting(wrapped) {
			t.Errorf("%v", wrapped)
		}
	}
	for _, err := range []error{nil, unix.EACCES, os.ErrDeadlineExceeded, context.Canceled} {
		if IsReexecuting(err) {
			t.Errorf("%v", err)
		}
	}
}
