package master

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// TestRearmPressure has a file as CRIU leaves it: open, and without a trigger.
func TestRearmPressure(t *testing.T) {
	f, err := os.OpenFile("/proc/pressure/memory", os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("this kernel does not tell the memory pressure: %v", err)
	}
	defer f.Close()
	self, err := nsenter.Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	ready := func() bool {
		fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}
		n, err := unix.Poll(fds, 0)
		if err != nil {
			t.Fatal(err)
		}
		return n > 0
	}
	if !ready() {
		t.Fatal("without a trigger the file is quiet: this kernel does not have the trouble")
	}
	for i, want := range []int{1, 0} {
		if n, err := RearmPressure(self); err != nil || n != want {
			t.Errorf("call %d: armed %d files (%v), want %d", i+1, n, err, want)
		}
		if ready() {
			t.Errorf("call %d: the file still reports an event", i+1)
		}
	}
}
