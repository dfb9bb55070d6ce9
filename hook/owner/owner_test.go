package owner

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// start starts a container whose first process is a shell. Its third descriptor
// is the mount namespace of the tests.
func start(t *testing.T, script string, flags uintptr) *nsenter.Process {
	t.Helper()
	testenv.RequireRoot(t)
	host, err := os.Open("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	cmd := exec.Command("sh", "-c", script+"\ncat")
	cmd.ExtraFiles = []*os.File{host}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags &^ unix.CLONE_NEWNS, Unshareflags: flags & unix.CLONE_NEWNS}
	return testproc.Open(t, testenv.StartPrepared(t, cmd))
}

const own = unix.CLONE_NEWPID | unix.CLONE_NEWNS

// find opens the process with the given arguments.
func find(t *testing.T, args ...string) *nsenter.Process {
	t.Helper()
	want := strings.Join(args, "\x00") + "\x00"
	var found *nsenter.Process
	testenv.Eventually(t, "a process "+strings.Join(args, " "), func() bool {
		entries, err := os.ReadDir("/proc")
		if err != nil {
			return false
		}
		for _, e := range entries {
			data, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
			pid, numberErr := strconv.Atoi(e.Name())
			if err == nil && numberErr == nil && string(data) == want {
				found, err = nsenter.Open(pid)
				return err == nil
			}
		}
		return false
	})
	t.Cleanup(func() {
		_ = found.Signal(unix.SIGKILL) // an orphan would stay
		found.Close()
	})
	return found
}

// inject starts a program in all namespaces of a container, as "runc exec" does.
func inject(t *testing.T, init *nsenter.Process, args ...string) {
	t.Helper()
	target := []string{"nsenter", "--target", strconv.Itoa(init.PID()), "--mount", "--pid", "--"}
	testenv.StartCommand(t, nil, append(target, args...)...)
}

func TestAdmit(t *testing.T) {
	init := start(t, `sleep 7001 &
		(sleep 7002 &)
		unshare --mount sleep 7003 &
		unshare --pid --mount --fork sh -c 'sleep 7004 & wait' &
		nsenter --mount=/proc/self/fd/3 sleep 7005 &`, own)
	sibling := start(t, "sleep 7006 &", own)
	inject(t, init, "sleep", "7007")
	inject(t, init, "sh", "-c", "(sleep 7008 &)")
	self, err := nsenter.Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	first, err := nsenter.Open(1)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	for name, test := range map[string]struct {
		process *nsenter.Process
		inside  bool
	}{
		"first process":               {init, true},
		"child":                       {find(t, "sleep", "7001"), true},
		"daemon that forked twice":    {find(t, "sleep", "7002"), true},
		"own mount namespace":         {find(t, "sleep", "7003"), true},
		"container in the container":  {find(t, "sleep", "7004"), true},
		"in the host's namespace":     {find(t, "sleep", "7005"), false},
		"another container":           {sibling, false},
		"child of another container":  {find(t, "sleep", "7006"), false},
		"injected":                    {find(t, "sleep", "7007"), false},
		"injected, then forked twice": {find(t, "sleep", "7008"), true},
		"this process":                {self, false},
		"PID 1 of the host":           {first, false},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := Of(init).Admit(test.process)
			if (err == nil) != test.inside || err != nil && !errors.Is(err, ErrOutside) {
				t.Errorf("%v, want inside: %v", err, test.inside)
			}
			if (m != nil) != test.inside {
				t.Errorf("member %v, want one: %v", m, test.inside)
			}
		})
	}
}

// TestAdmitSharedPIDNamespace has two containers in the pid namespace of the tests.
func TestAdmitSharedPIDNamespace(t *testing.T) {
	a := start(t, "sleep 7011 &", unix.CLONE_NEWNS)
	b := start(t, "sleep 7012 &", unix.CLONE_NEWNS)
	inA, inB := find(t, "sleep", "7011"), find(t, "sleep", "7012")
	for i, test := range []struct {
		first, process *nsenter.Process
		inside         bool
	}{{a, inA, true}, {a, inB, false}, {a, b, false}, {b, inA, false}, {b, inB, true}} {
		if _, err := Of(test.first).Admit(test.process); (err == nil) != test.inside || err != nil && !errors.Is(err, ErrOutside) {
			t.Errorf("%d: %v, want inside: %v", i, err, test.inside)
		}
	}
}

// TestSignal takes a process away from its container after it was admitted.
func TestSignal(t *testing.T) {
	init := start(t, `sh -c 'sleep 7021 & wait' between &`, unix.CLONE_NEWNS)
	p, between := find(t, "sleep", "7021"), find(t, "sh", "-c", "sleep 7021 & wait", "between")
	m, err := Of(init).Admit(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Signal(0); err != nil {
		t.Errorf("while it descends: %v", err)
	}
	if err := between.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "it has another parent", func() bool { return errors.Is(m.Check(), ErrOutside) })
	if err := m.Signal(unix.SIGKILL); !errors.Is(err, ErrOutside) {
		t.Errorf("signalled: %v", err)
	}
	if p.Ended() {
		t.Fatal("it was ended")
	}
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Error(err)
	}
}

// TestAdmitNumber: another process with the first process's number is another
// container.
func TestAdmitNumber(t *testing.T) {
	child := testenv.StartInNamespaces(t, unix.CLONE_NEWNS)
	init := testproc.Open(t, child)
	child.End()
	last := []byte(strconv.Itoa(init.PID() - 1))
	for range 20 {
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", last, 0); err != nil {
			t.Skipf("skipped: no process with a chosen number: %v", err)
		}
		stranger := testenv.StartInNamespaces(t, unix.CLONE_NEWNS)
		if stranger.PID() != init.PID() {
			stranger.End()
			continue
		}
		if _, err := Of(init).Admit(testproc.Open(t, stranger)); !errors.Is(err, ErrOutside) {
			t.Errorf("%v", err)
		}
		return
	}
	t.Skip("skipped: others start processes all the time")
}

// TestAdmitEnded: of one that has ended it is not said that it is outside.
func TestAdmitEnded(t *testing.T) {
	init := start(t, "sleep 7031 &", own)
	p := find(t, "sleep", "7031")
	if err := init.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "it has ended", func() bool { return p.Ended() })
	if _, err := Of(init).Admit(p); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrOutside) {
		t.Errorf("%v", err)
	}
}
