package respawn

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

const everySpace = unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP

// model starts a process in namespaces of its own that becomes "sleep" after a
// piece of shell.
func model(t *testing.T, shell string, change func(*syscall.SysProcAttr)) *nsenter.Process {
	t.Helper()
	requireRoot(t)
	attr := &syscall.SysProcAttr{Cloneflags: everySpace, Unshareflags: unix.CLONE_NEWNS}
	if change != nil {
		change(attr)
	}
	p := open(t, testenv.StartCommand(t, attr, "sh", "-ec", shell+"\nexec sleep 1000"))
	testenv.Eventually(t, "a process that sleeps", func() bool {
		comm, err := p.ReadFile("comm", 1<<10)
		line, err2 := p.ReadFile("cmdline", 1<<10) // there a little later
		return err == nil && err2 == nil && strings.HasPrefix(string(comm), "sleep") && len(line) > 0
	})
	return p
}

// twinOf captures and prepares.
func twinOf(t *testing.T, p *nsenter.Process) (*Prepared, error) {
	t.Helper()
	twin, files, err := Capture(t.Context(), p)
	if err != nil {
		return nil, err
	}
	defer Close(files)
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	defer cancel()
	prepared, err := Prepare(ctx, twin, files)
	if err == nil {
		t.Cleanup(prepared.Close)
	}
	return prepared, err
}

// TestTwin compares a twin that runs with its model, by files that the package
// itself does not look at, too.
func TestTwin(t *testing.T) {
	for name, c := range map[string]struct {
		shell  string
		change func(*syscall.SysProcAttr)
	}{
		"ordinary": {"", nil},
		"changed": {`umask 0027; ulimit -S -n 77; ulimit -H -n 99; ulimit -c 0; cd /usr/lib
			echo 321 >/proc/self/oom_score_adj; renice -n 5 $$ >/dev/null
			export SECRET='a b
c'; hostname twin`, nil},
		"affinity":      {"taskset -p -c 0 $$ >/dev/null", nil},
		"personality":   {"exec setarch -R sleep 1000", nil},
		"groups":        {"", func(a *syscall.SysProcAttr) { a.Credential = &syscall.Credential{Groups: []uint32{5, 77, 12345}} }},
		"another user":  {"", func(a *syscall.SysProcAttr) { a.Credential = &syscall.Credential{Uid: 1234, Gid: 4321} }},
		"fewer bounds":  {"exec setpriv --bounding-set=-sys_time,-mknod sleep 1000", nil},
		"inheritable":   {"exec setpriv --inh-caps=+chown,+sys_admin --ambient-caps=+chown sleep 1000", nil},
		"ambient":       {"exec setpriv --reuid=1234 --inh-caps=+chown,+sys_admin --ambient-caps=+chown,+sys_admin sleep 1000", nil},
		"no privileges": {"exec setpriv --no-new-privs sleep 1000", nil},
		"signals":       {"trap '' HUP USR2 PIPE", nil},
		"scheduling":    {"exec chrt --idle 0 sleep 1000", nil},
		"same spaces":   {"", func(a *syscall.SysProcAttr) { a.Cloneflags = 0 }},
	} {
		t.Run(name, func(t *testing.T) {
			p := model(t, c.shell, c.change)
			prepared, err := twinOf(t, p)
			if err != nil {
				t.Fatal(err)
			}
			twin := prepared.Process()
			if state, err := twin.Status("State"); err != nil || !strings.HasPrefix(state, "t") {
				t.Errorf("before it is let go: state %q, %v", state, err)
			}
			if err := prepared.Go(0); err != nil {
				t.Fatal(err)
			}
			testenv.Eventually(t, "a twin that sleeps", func() bool {
				state, err := twin.Status("State")
				return err == nil && strings.HasPrefix(state, "S")
			})
			checkTwin(t, p, twin)
			again, err := nsenter.Open(twin.PID())
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			prepared.Close()
			time.Sleep(20 * time.Millisecond)
			if again.Ended() {
				t.Error("let go of, the twin ended")
			}
			_ = again.Signal(unix.SIGKILL)
		})
	}
}

// own are the lines of /proc/<pid>/status that belong to one process.
var own = []string{
	"State", "Tgid", "Ngid", "Pid", "PPid", "TracerPid", "NStgid", "NSpid", "NSpgid", "NSsid", "Vm", "Rss", "Hugetlb", "CoreDumping",
	"voluntary_ctxt_switches", "nonvoluntary_ctxt_switches", "SigQ", "x86_", "untag_mask",
}

func checkTwin(t *testing.T, p, twin *nsenter.Process) {
	t.Helper()
	want, have := statusOf(t, p), statusOf(t, twin)
	for i, line := range want {
		if i >= len(have) || have[i] != line {
			t.Errorf("status: %q, want %q", have[min(i, len(have)-1)], line)
		}
	}
	for _, name := range []string{"limits", "environ", "cmdline", "oom_score_adj", "cgroup", "comm", "coredump_filter", "loginuid"} {
		a, err1 := p.ReadFile(name, 1<<20)
		b, err2 := twin.ReadFile(name, 1<<20)
		if err := errors.Join(err1, err2); string(a) != string(b) || err != nil {
			t.Errorf("%s: %q, want %q, %v", name, b, a, err)
		}
	}
	links, err := p.ReadDirNames("ns")
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range links {
		links[i] = "ns/" + name
	}
	for _, name := range append(links, "cwd", "root", "exe") {
		a, err1 := p.Readlink(name)
		b, err2 := twin.Readlink(name)
		if err := errors.Join(err1, err2); a != b || err != nil {
			t.Errorf("%s: %q, want %q, %v", name, b, a, err)
		}
	}
	if sid, err := unix.Getsid(twin.PID()); err != nil || sid != twin.PID() {
		t.Errorf("it is in session %d, %v", sid, err)
	}
	if group, err := unix.Getpgid(twin.PID()); err != nil || group != twin.PID() {
		t.Errorf("it is in process group %d, %v", group, err)
	}
	files, err := twin.ReadDirNames("fd")
	if err != nil || len(files) != 3 {
		t.Errorf("open files: %v, %v", files, err)
	}
	for _, name := range files {
		if link, err := twin.Readlink("fd/" + name); err != nil || link != "/dev/null" {
			t.Errorf("file %s is %q, %v", name, link, err)
		}
	}
}

func statusOf(t *testing.T, p *nsenter.Process) []string {
	t.Helper()
	data, err := p.ReadFile("status", 1<<16)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
next:
	for line := range strings.Lines(string(data)) {
		for _, prefix := range own {
			if strings.HasPrefix(line, prefix) {
				continue next
			}
		}
		lines = append(lines, line)
	}
	return lines
}

// TestNotLetGo: a twin that is not let go never runs and leaves nothing.
func TestNotLetGo(t *testing.T) {
	dir := t.TempDir()
	ran := filepath.Join(dir, "ran")
	p := model(t, "", nil)
	twin, files, err := Capture(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	defer Close(files)
	twin.Arguments = []byte("touch\x00" + ran + "\x00")
	touch, err := exec.LookPath("touch")
	if err != nil {
		t.Fatal(err)
	}
	twin.Path = touch
	if _, err := Prepare(t.Context(), twin, files); !errors.Is(err, ErrDiffers) {
		t.Errorf("another program: %v", err)
	}
	prepared, err := twinOf(t, p)
	if err != nil {
		t.Fatal(err)
	}
	started, err := nsenter.Open(prepared.Process().PID())
	if err != nil {
		t.Fatal(err)
	}
	defer started.Close()
	prepared.Close()
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience)
	defer cancel()
	if err := started.WaitEnd(ctx); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("a process that differs has run")
	}
	testenv.Eventually(t, "nobody is left", func() bool {
		members, err := p.Members()
		return err == nil && len(members) == 1
	})
}

// TestProgramReplaced: the program's own file is executed, whatever lies at its
// path now.
func TestProgramReplaced(t *testing.T) {
	for name, replace := range map[string]func(string) error{
		"removed": os.Remove,
		"replaced": func(path string) error {
			return errors.Join(os.Remove(path), os.WriteFile(path, []byte("#!/proc/self/exe\n"), 0o755))
		},
	} {
		t.Run(name, func(t *testing.T) {
			requireRoot(t)
			path := filepath.Join(t.TempDir(), "sleeper")
			if out, err := exec.Command("cp", "/bin/sleep", path).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			p := model(t, "exec "+path+" 1000", nil)
			if err := replace(path); err != nil {
				t.Fatal(err)
			}
			prepared, err := twinOf(t, p)
			if err != nil {
				t.Fatal(err)
			}
			a, err1 := pathTrait(p, "exe")
			b, err2 := pathTrait(prepared.Process(), "exe")
			if err := errors.Join(err1, err2); a != b || err != nil {
				t.Errorf("%s, want %s, %v", b, a, err)
			}
		})
	}
}

// TestImpossible: nothing is started for what cannot be copied.
func TestImpossible(t *testing.T) {
	p := model(t, "", func(a *syscall.SysProcAttr) {
		a.Cloneflags |= unix.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{HostID: 0, Size: 1}}
	})
	if _, _, err := Capture(t.Context(), p); !errors.Is(err, ErrNotPossible) || !strings.Contains(err.Error(), "user namespace") {
		t.Errorf("a user namespace: %v", err)
	}
	if err := Check(p); !errors.Is(err, ErrNotPossible) {
		t.Errorf("a user namespace: %v", err)
	}
}

// TestStarterKilled: the twin ends with the process that started it.
func TestStarterKilled(t *testing.T) {
	prepared, err := twinOf(t, model(t, "", nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := prepared.starter.Kill(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := prepared.Process().WaitEnd(ctx); err != nil {
		t.Error(err)
	}
}

// checkUntouched: the process goes on, and nobody else is in its pid namespace.
func checkUntouched(t *testing.T, p *nsenter.Process) {
	t.Helper()
	testenv.Eventually(t, "the process alone, asleep", func() bool {
		members, err := p.Members()
		state, err2 := p.Status("State")
		tracer, err3 := p.Status("TracerPid")
		return errors.Join(err, err2, err3) == nil && len(members) == 1 && strings.HasPrefix(state, "S") && tracer == "0"
	})
}
