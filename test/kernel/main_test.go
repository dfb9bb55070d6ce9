//go:build linux

package kernel

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testlock"
)

const (
	roleVariable      = "KERNEL_TEST_ROLE"
	namespaceVariable = "KERNEL_TEST_NAMESPACE"
	patience          = 5 * time.Second // limit for events that must happen
	lifetime          = time.Minute     // of a forgotten child
)

// roles are the functions of this binary as a child process: calls that may hang are made
// there, never in the test.
var roles = map[string]func(args []string) error{
	"master": runMaster,
	"touch":  runTouch,
}

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		time.AfterFunc(lifetime, func() { os.Exit(99) })
		err := roles[role](os.Args[1:])
		var errno syscall.Errno
		switch {
		case err == nil:
			os.Exit(0)
		case errors.As(err, &errno) && errno < 90:
			os.Exit(int(errno))
		}
		fmt.Fprintln(os.Stderr, role+":", err)
		os.Exit(98)
	}
	if os.Geteuid() != 0 || os.Getenv(namespaceVariable) != "" {
		os.Exit(m.Run())
	}
	os.Exit(testlock.Main(inOwnNamespace))
}

// inOwnNamespace runs the tests in a private mount namespace. The Go runtime makes every
// mount in it private, so no mount propagates to the host.
func inOwnNamespace() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), namespaceVariable+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return max(exit.ExitCode(), 1)
	}
	fmt.Fprintln(os.Stderr, "private mount namespace:", err)
	return 1
}

// child starts this binary in a role, in its own process group, so that it is not the
// master of the test's mounts, and kills the group at the end of the test.
func child(t *testing.T, role string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stderr = os.Stderr
	return cmd
}

func killGroup(cmd *exec.Cmd) { _ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }

// eventually waits until a condition is true.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if cond() {
			return
		}
	}
	t.Fatalf("not within %v: %s", patience, what)
}
