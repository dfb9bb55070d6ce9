package nsenter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"

	"golang.org/x/sys/unix"
)

func TestCheckForeign(t *testing.T) {
	testenv.RequireRoot(t)
	self, err := Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	ours := open(t, testenv.Start(t, nil))
	for name, p := range map[string]*Process{"self": self, "a child here": ours} {
		if err := p.CheckForeign(); !errors.Is(err, ErrOwnNamespace) {
			t.Errorf("%s: %v", name, err)
		}
		entered := false
		err := p.InMountNamespace(context.Background(), func(*Thread) error { entered = true; return nil })
		if !errors.Is(err, ErrOwnNamespace) || entered {
			t.Errorf("%s: entered %v, %v", name, entered, err)
		}
		if f, err := p.CopyMountNamespace(context.Background()); !errors.Is(err, ErrOwnNamespace) || f != nil {
			t.Errorf("%s: copied %v, %v", name, f, err)
		}
	}
	if err := open(t, testenv.StartInNamespaces(t, unix.CLONE_NEWNS)).CheckForeign(); err != nil {
		t.Errorf("in a namespace of its own: %v", err)
	}
}

// TestHostRefusedFromElsewhere: a caller in another namespace may not enter that
// of PID 1 either.
func TestHostRefusedFromElsewhere(t *testing.T) {
	testenv.RequireRoot(t)
	host, err := Open(1)
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	var checked error
	err = open(t, testenv.StartInNamespaces(t, unix.CLONE_NEWNS)).InMountNamespace(context.Background(), func(*Thread) error {
		checked = host.CheckForeign()
		return nil
	})
	if err != nil || !errors.Is(checked, ErrOwnNamespace) {
		t.Errorf("%v, %v", checked, err)
	}
}

// TestNamespace: equal for processes that share one, different for others.
func TestNamespace(t *testing.T) {
	c := testenv.StartInNamespaces(t, unix.CLONE_NEWNS|unix.CLONE_NEWPID)
	p, ours := open(t, c), open(t, testenv.Start(t, nil))
	for _, kind := range []string{"mnt", "pid", "net"} {
		theirs, err := p.Namespace(kind)
		here, hereErr := ours.Namespace(kind)
		if err != nil || hereErr != nil || (theirs == here) != (kind == "net") {
			t.Errorf("%s: %v and %v, %v, %v", kind, theirs, here, err, hereErr)
		}
		link, err := p.Readlink("ns/" + kind)
		if want := fmt.Sprintf("%s:[%d]", kind, theirs.Inode); err != nil || link != want {
			t.Errorf("link %q, want %q, %v", link, want, err)
		}
	}
	if _, err := p.Namespace("absent"); err == nil {
		t.Error("a namespace of no kind")
	}
}

// TestInMountNamespace mounts something there, and nothing here.
func TestInMountNamespace(t *testing.T) {
	p := open(t, testenv.StartInNamespaces(t, unix.CLONE_NEWNS))
	dir := t.TempDir()
	var table []byte
	err := p.InMountNamespace(context.Background(), func(th *Thread) error {
		if cwd, err := os.Getwd(); err != nil || cwd != "/" {
			return fmt.Errorf("working directory %q, %w", cwd, err)
		}
		if err := unix.Mount("inside", dir, "tmpfs", 0, "size=4k"); err != nil {
			return err
		}
		f, err := th.OpenProc("mountinfo")
		if err != nil {
			return err
		}
		defer f.Close()
		table, err = io.ReadAll(f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := p.ReadFile("mountinfo", 1<<20)
	if err != nil || !bytes.Contains(theirs, []byte(dir+" ")) || !bytes.Equal(theirs, table) {
		t.Errorf("mount table of the process, %v:\n%s\nof the thread:\n%s", err, theirs, table)
	}
	if ours, err := os.ReadFile("/proc/thread-self/mountinfo"); err != nil || bytes.Contains(ours, []byte(dir)) {
		t.Errorf("the mount is here too (%v)", err)
	}
	want := errors.New("what the function says")
	if err := p.InMountNamespace(context.Background(), func(*Thread) error { return want }); !errors.Is(err, want) {
		t.Errorf("%v", err)
	}
}

func TestPanicBecomesError(t *testing.T) {
	p := open(t, testenv.StartInNamespaces(t, unix.CLONE_NEWNS))
	err := p.InMountNamespace(context.Background(), func(*Thread) error { panic("odd container") })
	if err == nil || !strings.Contains(err.Error(), "odd container") || !strings.Contains(err.Error(), "enter_test.go") {
		t.Errorf("%v", err)
	}
	var none *os.File
	if err := p.InMountNamespace(context.Background(), func(*Thread) error { _ = *none; return nil }); err == nil {
		t.Error("nil was followed without an error")
	}
}

// TestStuckFunction: the end of ctx is the end of the call, not of the function.
func TestStuckFunction(t *testing.T) {
	p := open(t, testenv.StartInNamespaces(t, unix.CLONE_NEWNS))
	release, ended := make(chan struct{}), make(chan struct{})
	cause := errors.New("too late")
	ctx, cancel := context.WithTimeoutCause(context.Background(), 20*time.Millisecond, cause)
	defer cancel()
	begin := time.Now()
	err := p.InMountNamespace(ctx, func(*Thread) error {
		defer close(ended)
		<-release
		return nil
	})
	if !errors.Is(err, cause) || time.Since(begin) > testenv.Patience {
		t.Errorf("%v after %v", err, time.Since(begin))
	}
	select {
	case <-ended:
		t.Error("the function was not stuck")
	default:
	}
	close(release)
	select {
	case <-ended:
	case <-time.After(testenv.Patience):
		t.Error("the function was never called")
	}
}

// TestOtherThreadsStay: while many goroutines are inside, and afterwards, no
// other goroutine and not the main thread is in the container's namespace.
func TestOtherThreadsStay(t *testing.T) {
	p := open(t, testenv.StartInNamespaces(t, unix.CLONE_NEWNS))
	here := namespaceOfThread(t)
	there, err := p.Readlink("ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	for i := range 64 {
		work.Go(func() {
			if i%2 == 0 {
				for range 20 {
					if got := namespaceOfThread(t); got != here {
						t.Errorf("a goroutine is in %s", got)
					}
					runtime.Gosched()
				}
				return
			}
			err := p.InMountNamespace(context.Background(), func(th *Thread) error {
				var buf [64]byte
				n, err := unix.Readlinkat(int(th.proc.Fd()), "ns/mnt", buf[:])
				if err == nil && string(buf[:n]) != there {
					err = fmt.Errorf("inside of %s, want %s", buf[:n], there)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	work.Wait()
	if got, err := os.Readlink("/proc/self/ns/mnt"); err != nil || got != here {
		t.Errorf("the main thread is in %s, %v", got, err)
	}
	testenv.Eventually(t, "all threads are where they were", func() bool { return testenv.ThreadNamespaces() == here })
}

func namespaceOfThread(t *testing.T) string {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	link, err := os.Readlink("/proc/thread-self/ns/mnt")
	if err != nil {
		t.Error(err)
	}
	return link
}

// TestCopyMountNamespace: changes reach neither from the copy to the original
// nor back, whatever its propagation, and the copy outlives the process.
func TestCopyMountNamespace(t *testing.T) {
	testenv.RequireRoot(t)
	c := testenv.StartInNamespaces(t, unix.CLONE_NEWNS)
	p := open(t, c)
	dirs := map[string]string{"before": t.TempDir(), "copy": t.TempDir(), "original": t.TempDir()}
	mount := func(name string) func(*Thread) error {
		return func(*Thread) error { return unix.Mount(name, dirs[name], "tmpfs", 0, "size=4k") }
	}
	ctx := context.Background()
	err := p.InMountNamespace(ctx, func(th *Thread) error {
		return errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""), mount("before")(th))
	})
	if err != nil {
		t.Fatal(err)
	}
	ns, err := p.CopyMountNamespace(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := errors.Join(InNamespace(ctx, ns, mount("copy")), p.InMountNamespace(ctx, mount("original"))); err != nil {
		t.Fatal(err)
	}
	theirs, err := p.ReadFile("mountinfo", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	c.End()
	copied := tableOf(t, ns)
	for name, want := range map[string][2]bool{"before": {true, true}, "copy": {true, false}, "original": {false, true}} {
		dir := dirs[name] + " "
		if got := [2]bool{strings.Contains(copied, dir), strings.Contains(string(theirs), dir)}; got != want {
			t.Errorf("mount %q in the copy, the original: %v, want %v", name, got, want)
		}
	}
	for _, word := range []string{" shared:", " master:"} {
		if strings.Contains(copied, word) {
			t.Errorf("the copy has mounts that are%s", word)
		}
	}
}

func tableOf(t *testing.T, ns *os.File) string {
	t.Helper()
	var table []byte
	err := InNamespace(context.Background(), ns, func(th *Thread) error {
		f, err := th.OpenProc("mountinfo")
		if err != nil {
			return err
		}
		defer f.Close()
		table, err = io.ReadAll(f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(table)
}

func TestInNamespaceFileRefuses(t *testing.T) {
	testenv.RequireRoot(t)
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	entered := false
	err = InNamespace(context.Background(), f, func(*Thread) error { entered = true; return nil })
	if !errors.Is(err, unix.EINVAL) || entered {
		t.Errorf("/dev/null as a namespace: entered %v, %v", entered, err)
	}
}
