package nsenter

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
)

func TestOpenRefuses(t *testing.T) {
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	for _, pid := range []int{0, -1, -os.Getpid()} {
		if p, err := Open(pid); err == nil || !strings.Contains(err.Error(), "must be positive") {
			t.Errorf("Open(%d) = %v, %v", pid, p, err)
		}
	}
	for name, pid := range map[string]int{"ended": ended.Process.Pid, "never": 1<<22 + 1} {
		p, err := Open(pid)
		if name == "ended" && err == nil {
			p.Close()
			continue // the number has a new owner already
		}
		if err == nil || name == "ended" && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: Open(%d) = %v, %v", name, pid, p, err)
		}
	}
}

// TestStartTimeOfOddName: blanks and parentheses in the name move no field. The
// name of a process is that of its program file.
func TestStartTimeOfOddName(t *testing.T) {
	sleep, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Fatal(err)
	}
	before, err := Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	for _, name := range []string{"a b) S 1 2 3 (", ") R 0 0 0 0 0", "\n\n\t)"} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, sleep, 0o700); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(path, "60")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		p, err := Open(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		// Started after this process, and by no more than a minute.
		if ticks := p.StartTime() - before.StartTime(); p.StartTime() < before.StartTime() || ticks > 6000 {
			t.Errorf("%q: start time %d, that of the test %d", name, p.StartTime(), before.StartTime())
		}
		p.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// methods is everything that reaches for the process itself.
func methods(p *Process) map[string]func() error {
	drop := func(f *os.File, err error) error {
		if f != nil {
			f.Close()
		}
		return err
	}
	ctx := context.Background()
	return map[string]func() error{
		"Alive":              p.Alive,
		"Signal":             func() error { return p.Signal(unix.SIGKILL) },
		"ReadFile":           func() error { _, err := p.ReadFile("stat", 1<<16); return err },
		"OpenProc":           func() error { return drop(p.OpenProc("mountinfo")) },
		"OpenFileDescriptor": func() error { return drop(p.OpenFileDescriptor(0, unix.S_IFIFO, unix.O_RDONLY)) },
		"OpenInRoot":         func() error { return drop(p.OpenInRoot("/", unix.O_PATH)) },
		"Readlink":           func() error { _, err := p.Readlink("exe"); return err },
		"ReadDirNames":       func() error { _, err := p.ReadDirNames("fd"); return err },
		"Namespace":          func() error { _, err := p.Namespace("mnt"); return err },
		"CheckForeign":       p.CheckForeign,
		"InMountNamespace": func() error {
			return p.InMountNamespace(ctx, func(*Thread) error { panic("entered a dead process") })
		},
		"CopyMountNamespace": func() error { return drop(p.CopyMountNamespace(ctx)) },
		"readStat":           func() error { _, _, err := p.readStat(); return err },
	}
}

// TestDeadProcess: nothing works on a process that has been reaped, even when
// its number belongs to another one.
func TestDeadProcess(t *testing.T) {
	testenv.RequireRoot(t)
	c := testenv.StartInNamespaces(t, unix.CLONE_NEWNS)
	p := open(t, c)
	for name, method := range methods(p) {
		if name != "Signal" && name != "InMountNamespace" {
			if err := method(); err != nil {
				t.Errorf("alive: %s: %v", name, err)
			}
		}
	}
	c.End()
	check := func(state string) {
		t.Helper()
		for name, method := range methods(p) {
			if err := method(); err == nil || !isGone(err) {
				t.Errorf("%s: %s: %v", state, name, err)
			}
		}
		if err := p.Alive(); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: Alive: %v, want fs.ErrNotExist", state, err)
		}
		if err := p.WaitEnd(context.Background()); err != nil {
			t.Errorf("%s: WaitEnd: %v", state, err)
		}
	}
	check("dead")
	if stranger := startWithNumber(t, p.PID()); stranger != nil {
		check("its number belongs to another")
		if open(t, stranger).Alive() != nil {
			t.Error("the stranger was hit")
		}
	}
}

// startWithNumber starts a process with the given number (ns_last_pid, or nil
// if another process is always faster).
func startWithNumber(t *testing.T, pid int) *testenv.Child {
	t.Helper()
	for range 20 {
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(fmt.Sprint(pid-1)), 0); err != nil {
			t.Logf("no process with a chosen number: %v", err)
			return nil
		}
		c := testenv.Start(t, nil)
		if c.PID() == pid {
			return c
		}
		c.End()
	}
	t.Logf("number %d could not be had: others start processes too", pid)
	return nil
}

func TestClosedProcess(t *testing.T) {
	p := open(t, testenv.Start(t, nil))
	for range 2 {
		if err := p.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	for name, method := range methods(p) {
		if err := method(); err == nil {
			t.Errorf("%s works on a closed process", name)
		}
	}
}

func TestReadFileLimit(t *testing.T) {
	p := open(t, testenv.Start(t, nil))
	want, err := p.ReadFile("cmdline", 1<<10)
	if err != nil || string(want) != "cat\x00" {
		t.Fatalf("cmdline %q, %v", want, err)
	}
	if got, err := p.ReadFile("cmdline", int64(len(want))); err != nil || string(got) != string(want) {
		t.Errorf("limit of its size: %q, %v", got, err)
	}
	if got, err := p.ReadFile("cmdline", int64(len(want)-1)); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("limit below its size: %q, %v", got, err)
	}
}

func TestFilesOfProcess(t *testing.T) {
	c := testenv.Start(t, nil)
	p := open(t, c)
	exe, err := p.Readlink("exe")
	if err != nil || !strings.Contains(exe, "/") {
		t.Errorf("exe: %q, %v", exe, err)
	}
	names, err := p.ReadDirNames("fd")
	if err != nil || !slices.Contains(names, "0") || !slices.Contains(names, "2") {
		t.Errorf("descriptors %q, %v", names, err)
	}
	if _, err := p.ReadDirNames("stat"); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("directory stat: %v", err)
	}
	if _, err := p.OpenProc("absent"); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "absent") {
		t.Errorf("absent file: %v", err)
	}
}

// TestExecuted: a shell that was executed, and a part of it that it only forked.
func TestExecuted(t *testing.T) {
	c := testenv.StartCommand(t, nil, "sh", "-c", "(read line); true")
	if !open(t, c).Executed() {
		t.Error("executed: not said")
	}
	var forked int
	testenv.Eventually(t, "the shell forks", func() bool {
		list, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", c.PID()))
		if err != nil {
			t.Fatal(err)
		}
		_, err = fmt.Sscan(string(list), &forked)
		return err == nil
	})
	p, err := Open(forked)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if p.Executed() {
		t.Error("forked: said to be executed")
	}
}

func TestWaitEnd(t *testing.T) {
	c := testenv.Start(t, nil)
	p := open(t, c)
	cause := errors.New("enough")
	ctx, cancel := context.WithTimeoutCause(context.Background(), 30*time.Millisecond, cause)
	defer cancel()
	begin := time.Now()
	if err := p.WaitEnd(ctx); !errors.Is(err, cause) || time.Since(begin) > testenv.Patience {
		t.Errorf("alive: %v after %v", err, time.Since(begin))
	}
	cancelled, stop := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, stop)
	begin = time.Now()
	if err := p.WaitEnd(cancelled); !errors.Is(err, context.Canceled) || time.Since(begin) > testenv.Patience {
		t.Errorf("cancelled: %v after %v", err, time.Since(begin))
	}
	time.AfterFunc(20*time.Millisecond, func() { c.Input.Close() }) // cat reads the end and exits
	if err := p.WaitEnd(context.Background()); err != nil {
		t.Errorf("ended: %v", err)
	}
	if err := p.Alive(); err != nil {
		t.Errorf("an unreaped zombie: %v", err)
	}
}

func TestSignal(t *testing.T) {
	c := testenv.Start(t, nil)
	p := open(t, c)
	if err := p.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.Cmd.Wait(); err == nil || c.Cmd.ProcessState.Sys().(interface{ Signal() unix.Signal }).Signal() != unix.SIGTERM {
		t.Errorf("ended by %v, %v", c.Cmd.ProcessState, err)
	}
}

// TestEnded: a file of a process that has ended says "no such process" where it
// was open before. That is fs.ErrNotExist too.
func TestEnded(t *testing.T) {
	child := testenv.Start(t, nil)
	p, err := Open(child.PID())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	f, err := p.OpenProc("stat")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	child.End()
	if _, err = f.Read(make([]byte, 8)); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("read: %v", err)
	}
	if err := ended(err); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// TestDying: a process that ended and was not waited for is as good as one that a
// signal has not reached yet.
func TestDying(t *testing.T) {
	child := testenv.Start(t, nil)
	p, err := Open(child.PID())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if p.Dying() {
		t.Error("it is said to be dying")
	}
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if !p.Dying() {
		t.Error("killed, and not said to be dying")
	}
	if err := p.WaitEnd(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !p.Dying() { // a zombie
		t.Error("ended, and not said to be dying")
	}
	child.End()
	if !p.Dying() {
		t.Error("gone, and not said to be dying")
	}
}
