package nsenter

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
)

// TestAliveOfAnotherUser: a process that may not be signalled is alive. The test
// runs itself as another user, who has no CAP_KILL.
func TestAliveOfAnotherUser(t *testing.T) {
	if text := os.Getenv("ALIVE_PID"); text != "" {
		pid, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		p, err := Open(pid)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if err := p.Signal(0); !errors.Is(err, unix.EPERM) {
			t.Fatalf("the process may be signalled: %v", err)
		}
		if err := p.Alive(); err != nil {
			t.Error(err)
		}
		return
	}
	testenv.RequireRoot(t)
	child := testenv.Start(t, nil)
	// Through /proc: the folder of the test's program is root's.
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestAliveOfAnotherUser$")
	cmd.Env = append(os.Environ(), "ALIVE_PID="+strconv.Itoa(child.Cmd.Process.Pid))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	cmd.Dir = "/"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("as another user: %v\n%s", err, out)
	}
}
