package fdstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// hold starts a holder, bound to a child, and reaps it at the end.
func hold(t *testing.T, lifetime time.Duration, files ...*os.File) (Ref, *testenv.Child) {
	t.Helper()
	testenv.RequireRoot(t)
	bound := testenv.Start(t, nil)
	ref, err := Start(Request{Bound: testproc.Open(t, bound), Lifetime: lifetime, Files: files})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reap(t, ref) })
	return ref, bound
}

// reap ends the holder, which is a child of the test's process as it is of the
// program's, but which outlives that.
func reap(t *testing.T, ref Ref) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testenv.Patience)
	defer cancel()
	if err := ref.Stop(ctx); err != nil {
		t.Error(err)
	}
	for {
		_, err := unix.Wait4(ref.PID, nil, 0, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// scratch makes an open file without a name.
func scratch(t *testing.T, text string) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate(text, unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), text)
	t.Cleanup(func() { f.Close() })
	if _, err := io.WriteString(f, text); err != nil {
		t.Fatal(err)
	}
	return f
}

// ended waits for the holder's end by itself.
func ended(t *testing.T, ref Ref) {
	t.Helper()
	p, err := nsenter.Open(ref.PID)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ctx, cancel := context.WithTimeout(context.Background(), testenv.Patience)
	defer cancel()
	if err := p.WaitEnd(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestHold: the helper keeps files open that no other process has open.
func TestHold(t *testing.T) {
	first, second := scratch(t, "first"), scratch(t, "second")
	ref, _ := hold(t, time.Minute, first, second)
	first.Close()
	second.Close()
	for range 2 {
		for i, want := range []string{"first", "second"} {
			f, err := ref.Open(i)
			if err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 100)
			if n, err := f.ReadAt(buf, 0); string(buf[:n]) != want {
				t.Errorf("held file %d: %q, %v", i, buf[:n], err)
			}
			if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("held file %d is not close-on-exec (%v)", i, err)
			}
			f.Close()
		}
	}
	for _, i := range []int{-1, 2, 1 << 30} {
		if f, err := ref.Open(i); err == nil {
			f.Close()
			t.Errorf("held file %d of 2 was opened", i)
		}
	}
}

// TestNothingElse: a holder has what it was given and no more.
func TestNothingElse(t *testing.T) {
	// A file that CRIU or a runtime left open for this process.
	stray, err := unix.Open("/dev/zero", unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(stray)
	t.Setenv("SECRET", "of CRIU")
	ref, bound := hold(t, time.Minute, scratch(t, "held"))
	p, err := nsenter.Open(ref.PID)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var links []string
	testenv.Eventually(t, "a holder that sleeps", func() bool {
		wchan, err := p.ReadFile("wchan", 100)
		return err == nil && strings.Contains(string(wchan), "poll")
	})
	names, err := p.ReadDirNames("fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		link, err := p.Readlink("fd/" + name)
		// The Go runtime looks at its cgroup's processor limit from time to time.
		if err == nil && !strings.HasPrefix(link, "/sys/fs/cgroup/") {
			links = append(links, name+" "+link)
		}
	}
	slices.Sort(links)
	want := []string{"0 /dev/null", "1 /dev/null", "2 /dev/null", "3 anon_inode:[pidfd]", "4 /memfd:held (deleted)"}
	if !slices.Equal(links, want) {
		t.Errorf("descriptors %q, want %q", links, want)
	}
	info, err := p.ReadFile("fdinfo/3", 1<<10)
	if err != nil || !strings.Contains(string(info), fmt.Sprintf("\nPid:\t%d\n", bound.PID())) {
		t.Errorf("bound to %q, %v", info, err)
	}
	if env, err := p.ReadFile("environ", 1<<16); err != nil || len(env) != 0 {
		t.Errorf("environment %q, %v", env, err)
	}
	if cwd, err := p.Readlink("cwd"); err != nil || cwd != "/" {
		t.Errorf("working directory %q, %v", cwd, err)
	}
	if sid, err := unix.Getsid(ref.PID); err != nil || sid != ref.PID {
		t.Errorf("session %d, %v", sid, err)
	}
	if line, err := p.ReadFile("cmdline", 1<<10); err != nil || string(line) != "/proc/self/exe\x00hold-files\x0060\x000\x000\x00" {
		t.Errorf("command line %q, %v", line, err)
	}
}

func TestEndsWithTheBound(t *testing.T) {
	ref, bound := hold(t, time.Minute, scratch(t, "x"))
	bound.End()
	ended(t, ref)
}

// TestBoundIsDead: a holder of a process that has ended already ends at once.
func TestBoundIsDead(t *testing.T) {
	testenv.RequireRoot(t)
	bound := testenv.Start(t, nil)
	p := testproc.Open(t, bound)
	bound.End()
	ref, err := Start(Request{Bound: p, Lifetime: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer reap(t, ref)
	testenv.Eventually(t, "the end of the holder", func() bool {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", ref.PID))
		return err != nil || strings.Contains(string(data), ") Z ")
	})
}

func TestEndsWithItsLifetime(t *testing.T) {
	begin := time.Now()
	ref, _ := hold(t, time.Second, scratch(t, "x"))
	ended(t, ref)
	if d := time.Since(begin); d < 900*time.Millisecond || d > 4*time.Second {
		t.Errorf("it lived %v, not 1s", d)
	}
}

func TestStop(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	ref, _ := hold(t, time.Minute, write)
	write.Close()
	ctx, cancel := context.WithTimeout(context.Background(), testenv.Patience)
	defer cancel()
	if err := ref.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	// Its files are closed when Stop returns.
	fds := []unix.PollFd{{Fd: int32(read.Fd()), Events: unix.POLLIN}}
	if _, err := unix.Poll(fds, 0); err != nil || fds[0].Revents&unix.POLLHUP == 0 {
		t.Errorf("the held file is still open (%v)", err)
	}
	reap(t, ref)
	if err := ref.Stop(ctx); err != nil {
		t.Errorf("a second time: %v", err)
	}
	if _, err := ref.Open(0); !errors.Is(err, ErrGone) {
		t.Errorf("a file of one that has ended: %v", err)
	}
}

// TestOtherProcess: the start time tells a holder from a later process with its
// number, which is neither robbed nor killed.
func TestOtherProcess(t *testing.T) {
	testenv.RequireRoot(t)
	c := testenv.Start(t, nil)
	p := testproc.Open(t, c)
	for name, ref := range map[string]Ref{
		"another": {PID: p.PID(), StartTime: p.StartTime() - 1, Files: 1},
		"none":    {Files: 1},
		"ours":    {PID: os.Getpid(), StartTime: 1, Files: 1},
	} {
		if f, err := ref.Open(0); !errors.Is(err, ErrGone) || f != nil {
			t.Errorf("%s: Open: %v, %v", name, f, err)
		}
		if err := ref.Stop(context.Background()); err != nil {
			t.Errorf("%s: Stop: %v", name, err)
		}
	}
	if state, err := p.ReadFile("stat", 1<<12); err != nil || strings.Contains(string(state), ") Z ") {
		t.Errorf("the other process was killed: %s, %v", state, err)
	}
}

// TestModel moves the holder to the groups of another process.
func TestModel(t *testing.T) {
	testenv.RequireRoot(t)
	bound := testproc.Open(t, testenv.Start(t, nil))
	ref, err := Start(Request{Bound: bound, Model: bound, Lifetime: time.Minute})
	if err != nil && !errors.Is(err, ErrNotMoved) {
		t.Fatal(err)
	}
	defer reap(t, ref)
	if err != nil {
		t.Logf("not moved here: %v", err)
		return
	}
	theirs, err := bound.ReadFile("cgroup", 1<<16)
	holders, err2 := os.ReadFile(filepath.Join("/proc", fmt.Sprint(ref.PID), "cgroup"))
	if errors.Join(err, err2) != nil || string(theirs) != string(holders) {
		t.Errorf("in the groups\n%s not\n%s %v", holders, theirs, errors.Join(err, err2))
	}
}

func TestRunRefuses(t *testing.T) {
	for _, args := range [][]string{nil, {""}, {"x"}, {"1"}, {"1", "2"}, {"-1", "0", "0"}, {"1", "x", "0"}, {"1", "0", ""}, {"99999999999999999999", "0", "0"}} {
		if err := Run(args); err == nil || !strings.HasPrefix(err.Error(), Verb) {
			t.Errorf("%q: %v", args, err)
		}
	}
}

// TestManyFiles: also more than are usual.
func TestManyFiles(t *testing.T) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < 1000 {
		t.Skipf("skipped: only %d descriptors (%v)", limit.Cur, err)
	}
	f := scratch(t, "many")
	ref, _ := hold(t, time.Minute, slices.Repeat([]*os.File{f}, 500)...)
	last, err := ref.Open(499)
	if err != nil {
		t.Fatal(err)
	}
	last.Close()
}

// TestUnrecorded: a holder that is not recorded ends with who started it; one
// that is goes on.
func TestUnrecorded(t *testing.T) {
	testenv.RequireRoot(t)
	bound := testproc.Open(t, testenv.Start(t, nil))
	r, recorded, err := StartUncommitted(Request{Bound: bound, Lifetime: time.Minute, Files: []*os.File{scratch(t, "held")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reap(t, r) })
	if err := recorded(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	f, err := r.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, err := r.Open(1); err == nil {
		t.Error("the pipe counts as a held file")
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	abandoned, err := Request{Bound: bound, Lifetime: time.Minute}.start([]*os.File{read}, firstFile)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reap(t, abandoned) })
	write.Close() // as the kernel does for a process that is killed
	ended(t, abandoned)
}
