package cure

import (
	"bytes"
	"errors"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/automount"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/owner"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/systemd"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"

	"golang.org/x/sys/unix"
)

// orphan returns a process that was admitted and then left its container: its parent,
// a child of the first process, has ended.
func orphan(t *testing.T) *owner.Member {
	t.Helper()
	testenv.RequireRoot(t)
	cmd := exec.Command("sh", "-c", `sh -c 'echo $$; sleep 300 & echo $!; wait' & cat`)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	var output bytes.Buffer
	reader, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	init := testproc.Open(t, testenv.StartPrepared(t, cmd))
	buf := make([]byte, 64)
	for strings.Count(output.String(), "\n") < 2 {
		n, err := reader.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		output.Write(buf[:n])
	}
	var list []*nsenter.Process
	for _, number := range strings.Fields(output.String()) {
		pid, err := strconv.Atoi(number)
		if err != nil {
			t.Fatal(err)
		}
		p, err := nsenter.Open(pid)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		list = append(list, p)
	}
	parent, p := list[0], list[1]
	m, err := owner.Of(init).Admit(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Signal(unix.SIGKILL) })
	if err := parent.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "it has left the container", func() bool { return errors.Is(m.Check(), owner.ErrOutside) })
	return m
}

// TestOwnerCheck: every operation on a master checks again that it is a process of the
// container.
func TestOwnerCheck(t *testing.T) {
	m := orphan(t)
	if manager, err := systemd.Connect(t.Context(), m); !errors.Is(err, owner.ErrOutside) {
		t.Errorf("connected: %v, %v", manager, err)
	}
	if edit, err := systemd.Reexecute(t.Context(), m, systemd.ReexecuteOptions{Version: 252}); !errors.Is(err, owner.ErrOutside) {
		t.Errorf("re-executed: %v, %v", edit, err)
	}
	if files, err := automount.OpenBlockedRoots(t.Context(), m, []automount.Root{{Path: "/", Device: 1}}); !errors.Is(err, owner.ErrOutside) || len(files) != 1 || files[0] != nil {
		t.Errorf("opened mounts: %v, %v", files, err)
	}
	if err := m.Signal(unix.SIGHUP); !errors.Is(err, owner.ErrOutside) {
		t.Errorf("signalled: %v", err)
	}
	if m.Ended() {
		t.Error("it has ended")
	}
}
