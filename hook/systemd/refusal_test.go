package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
)

// TestCheckProgram looks at program files that are not the ones that run.
func TestCheckProgram(t *testing.T) {
	testenv.RequireRoot(t)
	dir := t.TempDir() + "/lib/systemd"
	program := dir + "/systemd"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cat, err := exec.LookPath("cat")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(cat)
	if err != nil {
		t.Fatal(err)
	}
	write := func(path string, text []byte, mode os.FileMode) func() error {
		return func() error {
			_ = os.Remove(path)
			return os.WriteFile(path, text, mode)
		}
	}
	if err := write(program, text, 0o755)(); err != nil {
		t.Fatal(err)
	}
	p := testproc.Open(t, testenv.StartCommand(t, nil, program))
	testenv.Eventually(t, "the program runs", func() bool { return checkProgram(p, false) == nil })

	rename := func(from, to string) func() error { return func() error { return os.Rename(from, to) } }
	steps := []struct {
		about   string
		do      func() error
		can     bool
		allowed bool // if the administrator allows another version
	}{
		{"renamed", rename(program, program+".old"), false, false},
		{"renamed, and another one in its place", write(program, text, 0o755), false, false},
		{"renamed back", rename(program+".old", program), true, true},
		{"removed", func() error { return os.Rename(program, dir+"/elsewhere") }, false, false},
		{"back", rename(dir+"/elsewhere", program), true, true},
		{"replaced by another one", func() error {
			if err := write(program+".new", text, 0o755)(); err != nil {
				return err
			}
			return os.Rename(program+".new", program)
		}, false, true},
		{"replaced by nothing", write(program, nil, 0o755), false, false},
		{"replaced by no program", write(program, text, 0o644), false, false},
		{"replaced by a link", func() error { _ = os.Remove(program); return os.Symlink(cat, program) }, false, false},
		{"replaced by a folder", func() error { _ = os.Remove(program); return os.Mkdir(program, 0o755) }, false, false},
		{"gone", func() error { return os.Remove(program) }, false, false},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		for allowed, can := range map[bool]bool{false: step.can, true: step.allowed} {
			if err := checkProgram(p, allowed); (err == nil) != can {
				t.Errorf("%s, allowed %t: %v", step.about, allowed, err)
			} else if err != nil && !strings.Contains(err.Error(), "replaced") {
				t.Errorf("%s: %v; want it to say that the file was replaced", step.about, err)
			}
		}
	}
}

// TestCheckRoom has processes with a /run of their own.
func TestCheckRoom(t *testing.T) {
	testenv.RequireRoot(t)
	for name, test := range map[string]struct {
		script string // in /run
		say    string // "" for enough
	}{
		"enough":       {"mount -t tmpfs -o size=17m run . && mkdir /run/systemd", ""},
		"too small":    {"mount -t tmpfs -o size=15m run . && mkdir /run/systemd", " bytes free below its /run/systemd"},
		"full":         {"mount -t tmpfs -o size=30m run . && mkdir /run/systemd && truncate -s 15m /run/f && shred -n1 /run/f", " bytes free below"},
		"its own":      {"mount -t tmpfs -o size=1m run . && mkdir /run/systemd && mount -t tmpfs -o size=17m systemd /run/systemd", ""},
		"no such":      {"mount -t tmpfs -o size=17m run .", "no such file"},
		"a link":       {"mount -t tmpfs -o size=17m run . && ln -s /tmp /run/systemd", "symbolic links"},
		"its own full": {"mount -t tmpfs -o size=30m run . && mkdir /run/systemd && mount -t tmpfs -o size=1m systemd /run/systemd", " bytes free below"},
	} {
		t.Run(name, func(t *testing.T) {
			ready := filepath.Join(t.TempDir(), "ready")
			script := "mount --make-rprivate / && cd /run && " + test.script + " && touch " + ready + " && exec cat"
			p := testproc.Open(t, testenv.StartCommand(t, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}, "sh", "-c", script))
			testenv.Eventually(t, "its /run is ready", func() bool { _, err := os.Stat(ready); return err == nil })
			err := checkRoom(p)
			if (err == nil) != (test.say == "") || err != nil && !strings.Contains(err.Error(), test.say) {
				t.Errorf("%v, want %q", err, test.say)
			}
		})
	}
}

// TestCanReexecuteTraced: a process that another one traces is left alone.
func TestCanReexecuteTraced(t *testing.T) {
	testenv.RequireRoot(t)
	p := testproc.Open(t, testenv.Start(t, nil))
	testenv.OnThread(func() {
		if err := unix.PtraceSeize(p.PID()); err != nil {
			t.Error(err)
			return
		}
		if err := canReexecute(p, true); err == nil || !strings.Contains(err.Error(), "traced") {
			t.Errorf("%v", err)
		}
	}) // the end of the thread releases the process
}
