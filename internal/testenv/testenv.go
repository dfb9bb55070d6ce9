// Package testenv runs the tests of packages that work on real processes and
// mounts. It is imported by tests only.
package testenv

import (
	"bytes"
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

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testlock"
)

const innerVariable = "TEST_IN_OWN_NAMESPACES"

// Patience bounds how long a test waits for an expected event.
const Patience = 5 * time.Second

// The main thread is locked, as in cmd: a goroutine that enters a container on it would
// leave it there, because the runtime cannot end that thread.
func init() { runtime.LockOSThread() }

// Main is for TestMain, and does not return. As root it runs the tests in
// namespaces of their own. It fails when they leave descriptors open, or a
// thread of theirs in another mount namespace. The garbage collector, which
// would close forgotten files, is off.
func Main(m *testing.M) {
	if os.Geteuid() == 0 && os.Getenv(innerVariable) == "" {
		os.Exit(testlock.Main(inOwnNamespaces))
	}
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(1 << 30)
	files, namespaces := descriptors(), ThreadNamespaces()
	status := m.Run()
	end := time.Now().Add(Patience)
	for (descriptors() != files || ThreadNamespaces() != namespaces) && time.Now().Before(end) {
		time.Sleep(5 * time.Millisecond) // threads end a little after their goroutines
	}
	if now := descriptors(); now != files {
		fmt.Fprintf(os.Stderr, "FAIL: descriptors are left open\nbefore:\n%s\nafter:\n%s\n", files, now)
		status = 1
	}
	if now := ThreadNamespaces(); now != namespaces {
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

// descriptors lists the open files of this process, except those of the Go runtime's
// poller.
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

// ThreadNamespaces lists the mount namespaces of this process's threads, each once.
func ThreadNamespaces() string {
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

// RequireRoot skips a test that needs root, with the reason, or fails it when
// REQUIRE=1 is in the environment.
func RequireRoot(t testing.TB) {
	t.Helper()
	switch {
	case os.Geteuid() == 0:
	case os.Getenv("REQUIRE") == "1":
		t.Fatal("required: root")
	default:
		t.Skip("skipped: needs root")
	}
}

// Eventually checks a condition every 2 ms, and fails the test if it is not met within
// Patience. what describes the condition, for the message.
func Eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(Patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if condition() {
			return
		}
	}
	t.Fatalf("not within %v: %s", Patience, what)
}

// WaitExecuted waits until a process that os/exec has started shows the name and
// arguments of its program, which differ from those of this one, or has ended. Start
// returns earlier: under emulation /proc still shows this program in one of twenty
// processes.
func WaitExecuted(t testing.TB, pid int) {
	t.Helper()
	own, err := os.ReadFile("/proc/self/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(Patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		// Written last.
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			t.Fatal(err)
		}
		ended := len(data) == 0 && strings.HasPrefix(StatusField(t, pid, "State"), "Z")
		if ended || len(data) > 0 && !bytes.Equal(data, own) {
			return
		}
	}
	t.Fatalf("process %d has not started its program within %v", pid, Patience)
}
