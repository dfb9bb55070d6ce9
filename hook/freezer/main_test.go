package freezer

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

const (
	innerVariable = "TEST_IN_OWN_NAMESPACES"
)

// patience bounds how long a test waits for what must happen.
const patience = 5 * time.Second

// The main thread is kept out of the way, as cmd does it: a goroutine that
// enters a container on it would leave it there (the runtime cannot end it).
func init() { runtime.LockOSThread() }

// TestMain fails when the tests leave descriptors open, or a thread of theirs in
// another mount namespace. The garbage collector, which would close forgotten
// files, is off.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		if verb, ok := verbs[os.Args[1]]; ok {
			if err := verb(os.Args[2:]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	if os.Geteuid() == 0 && os.Getenv(innerVariable) == "" {
		os.Exit(inOwnNamespaces())
	}
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(1 << 30)
	files, namespaces := descriptors(), threadNamespaces()
	status := m.Run()
	end := time.Now().Add(patience)
	for (descriptors() != files || threadNamespaces() != namespaces) && time.Now().Before(end) {
		time.Sleep(5 * time.Millisecond) // threads end a little after their goroutines
	}
	if now := descriptors(); now != files {
		fmt.Fprintf(os.Stderr, "FAIL: descriptors are left open\nbefore:\n%s\nafter:\n%s\n", files, now)
		status = 1
	}
	if now := threadNamespaces(); now != namespaces {
		fmt.Fprintf(os.Stderr, "FAIL: threads changed their mount namespace: %s became %s\n", namespaces, now)
		status = 1
	}
	os.Exit(status)
}

// inOwnNamespaces runs the tests in a pid namespace, whose first process is a
// shell that reaps orphans, and in a mount namespace where nothing reaches the
// host. There PID 1 may be looked at, and no process outlives the tests.
func inOwnNamespaces() int {
	cmd := exec.Command("/bin/sh", append([]string{"-c", `mount -t proc proc /proc && "$0" "$@"; exit $?`, os.Args[0]}, os.Args[1:]...)...)
	cmd.Env = append(os.Environ(), innerVariable+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Unshareflags: unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return max(exit.ExitCode(), 1)
	}
	fmt.Fprintln(os.Stderr, "own namespaces:", err)
	return 1
}

// descriptors lists what this process has open, but for the Go runtime's own
// poller and what tells nothing.
func descriptors() string {
	var list []string
	names, _ := filepath.Glob("/proc/self/fd/*")
	for _, name := range names {
		link, err := os.Readlink(name)
		if err == nil && link != "anon_inode:[eventpoll]" && link != "anon_inode:[eventfd]" {
			list = append(list, filepath.Base(name)+" "+link)
		}
	}
	return strings.Join(list, "\n")
}

// threadNamespaces lists the mount namespaces of this process's threads, each once.
func threadNamespaces() string {
	seen := map[string]bool{}
	var list []string
	names, _ := filepath.Glob("/proc/self/task/*/ns/mnt")
	for _, name := range names {
		if link, err := os.Readlink(name); err == nil && !seen[link] {
			seen[link] = true
			list = append(list, link)
		}
	}
	return strings.Join(list, " ")
}

func requireRoot(t testing.TB) {
	t.Helper()
	switch {
	case os.Geteuid() == 0:
	case os.Getenv("REQUIRE") == "1":
		t.Fatal("required: root")
	default:
		t.Skip("skipped: needs root")
	}
}

// child is a process that sleeps until the test ends it.
type child struct {
	cmd  *exec.Cmd
	life *os.File
}

// start runs cat, which ends when its standard input does: no child outlives
// the test, whatever happens.
func start(t testing.TB, attr *syscall.SysProcAttr) *child {
	t.Helper()
	return startCommand(t, attr, "cat")
}

func startCommand(t testing.TB, attr *syscall.SysProcAttr, args ...string) *child {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	c := &child{cmd: exec.Command(args[0], args[1:]...), life: write}
	c.cmd.Stdin, c.cmd.SysProcAttr = read, attr
	if err := c.cmd.Start(); err != nil {
		write.Close()
		t.Fatal(err)
	}
	t.Cleanup(c.end)
	return c
}

// end kills and reaps the child. It may be called more than once.
func (c *child) end() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
	c.life.Close()
}

func (c *child) open(t testing.TB) *nsenter.Process {
	t.Helper()
	p, err := nsenter.Open(c.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if condition() {
			return
		}
	}
	t.Fatalf("not within %v: %s", patience, what)
}
