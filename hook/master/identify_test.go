package master

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
)

// program copies cat under another name.
func program(t *testing.T, name string) string {
	t.Helper()
	cat, err := exec.LookPath("cat")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(cat)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestIdentify(t *testing.T) {
	testenv.RequireRoot(t)
	container := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
	for name, test := range map[string]struct {
		name string
		attr *syscall.SysProcAttr
		kind Kind
	}{
		"systemd as first process":    {"systemd", container, Systemd},
		"systemd as any other":        {"systemd", nil, Other},
		"automount":                   {"automount", nil, Automount},
		"automount as first process":  {"automount", container, Automount},
		"neither":                     {"amd", container, Other},
		"a name that begins the same": {"systemd-x", container, Other},
	} {
		path := program(t, test.name)
		p := testproc.Open(t, testenv.StartCommand(t, test.attr, path))
		for _, state := range []string{"", " with its program removed"} {
			id, err := Identify(p)
			if err != nil || id.Kind != test.kind || id.PID != p.PID() {
				t.Errorf("%s%s: %+v, %v", name, state, id, err)
			}
			if err := os.Remove(path); err != nil && state == "" {
				t.Fatal(err)
			}
		}
	}
	c := testenv.Start(t, nil)
	p := testproc.Open(t, c)
	c.End()
	if id, err := Identify(p); err == nil {
		t.Errorf("a dead process: %+v", id)
	}
}

// TestPipes: those that are read, not those that are written, nor other files.
func TestPipes(t *testing.T) {
	testenv.RequireRoot(t)
	c := testenv.Start(t, nil)
	p := testproc.Open(t, c)
	pipes, err := Pipes(p)
	if err != nil || len(pipes) != 1 {
		t.Fatalf("%v, %v", pipes, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(c.Input.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if fd, ok := pipes[st.Ino]; !ok || fd != 0 {
		t.Errorf("%v, want pipe %d as descriptor 0", pipes, st.Ino)
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	defer write.Close()
	writer := exec.Command("cat")
	writer.Stdout, writer.ExtraFiles = write, []*os.File{read}
	w := testproc.Open(t, testenv.StartPrepared(t, writer))
	if err := unix.Fstat(int(read.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	// Both ends of one pipe: the reading one is named.
	if pipes, err := Pipes(w); err != nil || len(pipes) != 2 || pipes[st.Ino] != 3 {
		t.Errorf("%v, %v, want pipe %d as descriptor 3", pipes, err, st.Ino)
	}
}
