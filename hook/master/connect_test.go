package master

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
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
