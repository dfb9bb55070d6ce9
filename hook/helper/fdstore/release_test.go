package fdstore

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
)

// trigger makes an autofs mount that is attached nowhere, and returns its root and
// the pipe that the kernel closes when it is catatonic.
func trigger(t *testing.T) (root, pipe *os.File) {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { read.Close() })
	tree, err := autofs.Create(autofs.CreateOptions{PipeWriter: write, Type: autofs.Offset, UID: -1, GID: -1, Source: "test"})
	write.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	if root, err = autofs.Reopen(tree); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root, read
}

// catatonic reports whether a trigger is catatonic by now: the kernel closes its
// end of the pipe then.
func catatonic(t *testing.T, pipe *os.File, patience time.Duration) bool {
	t.Helper()
	fds := []unix.PollFd{{Fd: int32(pipe.Fd()), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, int(patience.Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		return n > 0
	}
}

// TestRelease: at its end by itself a helper releases the first of its files, and
// no others; a helper that is stopped releases nothing.
func TestRelease(t *testing.T) {
	testenv.RequireRoot(t)
	for name, test := range map[string]struct {
		end  func(*testenv.Child, Ref)
		want bool
	}{
		"bound process has ended": {func(c *testenv.Child, _ Ref) { c.End() }, true},
		"stopped":                 {func(_ *testenv.Child, ref Ref) { _ = ref.Stop(context.Background()) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			first, firstPipe := trigger(t)
			second, secondPipe := trigger(t)
			bound := testenv.Start(t, nil)
			ref, err := Start(Request{Bound: testproc.Open(t, bound), Lifetime: time.Minute, Files: []*os.File{first, second}, Release: 1})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { reap(t, ref) })
			if catatonic(t, firstPipe, 50*time.Millisecond) {
				t.Error("released at once")
			}
			test.end(bound, ref)
			patience := testenv.Patience
			if !test.want {
				patience = 50 * time.Millisecond
			}
			if got := catatonic(t, firstPipe, patience); got != test.want {
				t.Errorf("the first is released: %v, want %v", got, test.want)
			}
			if catatonic(t, secondPipe, 50*time.Millisecond) {
				t.Error("the second is released")
			}
		})
	}
}
