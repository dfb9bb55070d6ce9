package systemd

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
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

// TestRearmPressureOnlyThere: a file that has the name of a pressure file, and is
// none, is not written to. The write to a host name would act on the writer's own
// UTS namespace: here that of a thread that ends with the test.
func TestRearmPressureOnlyThere(t *testing.T) {
	testenv.RequireRoot(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good
		if err := unix.Unshare(unix.CLONE_NEWUTS); err != nil {
			t.Error(err)
			return
		}
		// The second one reads like a pressure file.
		for _, name := range []string{"victim", "some avg10=0.00 avg60=0.00 avg300=0.00 total=0"} {
			notRenamed(t, name)
		}
	}()
	<-done
}

// notRenamed has the file that is this thread's host name open under the name of a
// pressure file.
func notRenamed(t *testing.T, host string) {
	const file = "/proc/sys/kernel/hostname"
	if err := unix.Sethostname([]byte(host)); err != nil {
		t.Error(err)
		return
	}
	name := filepath.Join(t.TempDir(), "memory.pressure")
	err := os.WriteFile(name, nil, 0o600)
	if err == nil {
		err = unix.Mount(file, name, "", unix.MS_BIND, "")
	}
	if err != nil {
		t.Error(err)
		return
	}
	defer func() {
		if err := unix.Unmount(name, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	self, err := nsenter.Open(os.Getpid())
	if err != nil {
		t.Error(err)
		return
	}
	defer self.Close()
	if n, err := RearmPressure(self); n != 0 || err != nil {
		t.Errorf("armed %d files (%v), want none", n, err)
	}
	if now, err := os.ReadFile(file); err != nil || string(now) != host+"\n" {
		t.Errorf("the host is called %q now (%v), before %q", now, err, host)
	}
}

// TestRearmPressureOfCgroup: the other files of a control group are not written to
// either, under whatever name.
func TestRearmPressureOfCgroup(t *testing.T) {
	testenv.RequireRoot(t)
	groups := t.TempDir()
	if err := unix.Mount("none", groups, "cgroup2", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(groups, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	name := filepath.Join(t.TempDir(), "memory.pressure")
	err := os.WriteFile(name, nil, 0o600)
	if err == nil {
		err = unix.Mount(groups+"/cgroup.procs", name, "", unix.MS_BIND, "")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(name, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	self, err := nsenter.Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	if n, err := RearmPressure(self); n != 0 || err != nil { // the kernel refuses what was written
		t.Errorf("armed %d files (%v), want none", n, err)
	}
}
